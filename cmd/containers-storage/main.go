// Command containers-storage is the command line of package store: verb for
// verb and flag for flag the containers tools' program of that name, so that
// scripts written for it run unchanged.
//
// verb.go says what a verb is and table.go lists all of them; each other file
// holds the verbs of one concern. `containers-storage VERB --help` and the
// pages docs/man/containers-storage-*.1 describe them.
package main

import (
	"os"
)

// version is set by the linker.
var version = "unknown"

func main() {
	os.Exit(run(os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}))
}
