// Command fuse-overlay mounts one writable tree over many read-only ones:
//
//	fuse-overlay -o lowerdir=A:B,upperdir=U,workdir=W MOUNTPOINT
//
// It goes into the background once the mount is there; -f keeps it in the
// foreground.
package main

import (
	"os"
)

// version is set by the linker.
var version = "unknown"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
