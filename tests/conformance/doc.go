// Package conformance holds one suite of what programs may expect of a
// filesystem, and runs it over many: a directory, the kernel's overlay,
// fuse-overlayfs and fuse-overlay, each with one lower layer and with many, as
// root, in a user namespace, with one ID, and through fusermount3.
//
// A case (cases_*_test.go) prepares a lower layer and then works on the tree.
// It expects what a plain directory does, so the plain directory is the oracle
// of the suite itself. A world (world_test.go) makes the tree; what a world is
// known to get wrong is listed in known_test.go, and such a case must fail
// there, else the list is wrong.
//
// bugs_test.go holds the field's historical bugs as cases, each with the public
// address of its report. Nothing here knows how the filesystem under test is
// made: PLYFS_FUSE_OVERLAY names another program to be run in place of ours. One
// that is built with -race has its reports in a file, and the tests fail when
// there is one, although the program runs in the background (race_test.go).
package conformance
