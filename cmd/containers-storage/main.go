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
	"runtime"
	"runtime/debug"
)

// version is set by the linker.
var version = "unknown"

// firstCollection is GOGC until the first garbage collection: with it, that
// comes at a heap of 32 MiB. Most commands end before; those that do not are
// collected as usual from there on.
const firstCollection = 800

func main() {
	if os.Getenv("GOGC") == "" {
		usual := debug.SetGCPercent(firstCollection)
		runtime.AddCleanup(new([4]uintptr), func(percent int) { debug.SetGCPercent(percent) }, usual)
	}
	os.Exit(run(os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}))
}
