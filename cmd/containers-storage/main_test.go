package main

import (
	"os"
	"testing"

	"github.com/plyfs/plyfs/cmd/cmdtest"
)

// ours is the path of the program that the tests run: the real one, built
// once, as it is installed.
var ours string

func TestMain(m *testing.M) {
	os.Exit(cmdtest.Main(m, program, func(path string) { ours = path }, "-X main.version=1.2.3-test"))
}
