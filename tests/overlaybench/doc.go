// Command overlaybench measures fuse-overlay beside the kernel's overlay,
// beside fuse-overlayfs and whatever OVERLAY_PEERS names, beside a plain
// directory and beside the floor, a bare loopback on go-fuse with the same
// caching (floor.go, kept for this alone): `make bench-overlay`.
//
// A line is a workload of one or more steps on one mount (mounts.go: mounting itself). Each round runs every
// side once, in an order that turns, on layers that are the same and an upper
// directory that is new; the resulting tree must hash to what the first side's
// did, or nothing is counted. Printed are medians, ratios to the kernel's
// overlay, and the CPU seconds of the serving process. Nothing is asserted
// about times.
//
//	OVERLAY_PEERS=NAME=PROGRAM,…   further programs that take fuse-overlayfs's
//	                               command line
//
// All is on a tmpfs of the program's own, where the programs' own cost shows, or
// on ext4, which is what a user has: that of the directory for temporary files
// where it is one, since a loop file on a page cache syncs and reads at the
// speed of memory; else, or when asked for, a loop file. It needs root; with -user
// the files are an ordinary user's, who mounts and works.
// As `overlaybench work NAME ARGS…` it is the child that carries out a step for
// which there is no common program, and as `overlaybench floor DIR MNT` it is
// the floor.
package main
