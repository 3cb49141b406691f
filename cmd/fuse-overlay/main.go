// Command fuse-overlay mounts a userspace overlay: one writable tree over many
// read-only ones. It is called as podman and buildah call their mount_program,
// as fuse-overlayfs is called, and, under the name mount.fuse.fuse-overlay, by
// mount(8). `fuse-overlay --help` and docs/man/fuse-overlay.1 say all of it.
package main

import "os"

// version is set by the linker.
var version = "unknown"

func main() {
	os.Exit(run(os.Args, os.Environ(), stdio{os.Stdout, os.Stderr}))
}
