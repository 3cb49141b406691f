// Package bridgebench measures, on one synthetic read-only tree, the two ways
// of serving inodes with go-fuse: its node bridge (package fs, an fs.Inode a
// file) and the raw interface (fuse.RawFileSystem) with a table of our own.
// docs/adr/0020-node-table.md says what follows from the numbers.
//
//	go test ./fuse-overlay/internal/bridgebench -run '^$' -bench . -benchtime 1x
//
// prints, for each of them: bytes of heap a cached inode after a walk of
// 200,000 files and after the kernel has been told to forget them (which
// drops the caches of the whole machine and needs root), and the time of a
// walk, of an lstat that the kernel may not answer itself, and of
// open+read+close. All accesses come from a process of their own, since a
// server must not touch its own mount. The same package holds the experiment
// on FUSE_NOTIFY_INC_EPOCH.
//
// Nothing here is part of the product.
package bridgebench
