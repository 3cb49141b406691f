// Package mounts turns mount plans into mounts, and is the only place in plyfs
// that calls mount(2) and its kin for layers.
//
// # How an overlay is mounted
//
// With fsopen(2), every layer is handed over by itself, as a path or a
// descriptor (Linux 6.13): nothing is escaped, no path is too long, 500 lowers
// fit, and the kernel's own words for a refusal can be read back. An older
// kernel, and a chain that would make a very long line in the table of mounts
// (see maxShown), gets mount(2) with one string, a page at most: absolute paths
// while they fit, else the numbers of descriptors, read from the directory
// /proc/thread-self/fd by a thread that has a working directory of its own and
// ends with the call. A mount program
// is started as podman does it (`-o OPTIONS TARGET`, working directory
// Plan.Dir, stdin and stdout /dev/null). Its stderr is a sealed memory file and
// not a pipe, so a daemon that keeps it open blocks nobody.
//
// # The bare root
//
// The containers tools bind-mount `<root>/overlay` on itself; a rename from
// another folder of the root into it is then EXDEV though it is one
// filesystem. OpenBare clones the root's mount without those below it; Rename
// and Exchange work through that descriptor and cross no mount.
//
// # Steps and kills
//
// Rename and Exchange are one system call, then fsync of the two directories at once:
// a kill before leaves the old state, after it the new one; only a power loss
// between the call and the fsync may bring the old one back.
// BindPrivate is two calls (bind, make private) under flock(2) on the
// directory, which keeps two of ours from stacking two binds, of which the
// second would hide mounts made under the first. A kill between the calls
// leaves a bind with the parent's propagation; the next caller sees a mount
// point and leaves it: harmless, mounts below it then propagate.
// The mapped copies of a plan are mounted before it and detached after it; a
// kill in between leaves one where it was, which the next Do with the same
// plan, or DetachAll, takes away.
// Do of a kernel overlay appears whole in one move_mount(2) or mount(2).
// Do of a program: a kill leaves the program, which is a process of its own.
//
// The package holds no lock and no state otherwise.
package mounts
