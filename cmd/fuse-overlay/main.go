// Command fuse-overlay mounts a userspace overlay: one writable tree over many
// read-only ones. It is called as podman and buildah call their mount_program,
// as fuse-overlayfs is called, and, under the name mount.fuse.fuse-overlay, by
// mount(8). `fuse-overlay --help` and docs/man/fuse-overlay.1 say all of it.
package main

import "os"

// version is set by the linker.
var version = "unknown"

func main() {
	deepen()
	os.Exit(run(os.Args, os.Environ(), stdio{os.Stdout, os.Stderr}))
}

// deepen has the stack grow at once to what a mount needs, while there is next to
// nothing on it: it would else be copied four times, each time with more.
//
//go:noinline
func deepen() byte {
	var b [20 << 10]byte
	return b[len(os.Args)&1023]
}
