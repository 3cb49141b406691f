package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// ours is the path of the program that the tests run: the real one, built
// once, as it is installed.
var ours string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "containers-storage-cmd-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// Ordinary users run it too.
	err = os.Chmod(dir, 0o755)
	ours = filepath.Join(dir, program)
	build := exec.Command("go", "build", "-ldflags", "-X main.version=1.2.3-test", "-o", ours, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, berr := build.CombinedOutput(); berr != nil {
		err = errors.Join(err, fmt.Errorf("build %s: %w\n%s", program, berr, out))
	}
	code := 1
	if err == nil {
		code = m.Run()
	}
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
