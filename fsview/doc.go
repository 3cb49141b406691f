// Package fsview is the control tree: the files and directories through which
// a container store is read and changed. It turns paths into calls of package
// store, and holds no state that the store does not have, but for three
// things that live as long as the mount: drafts, the mounts it took for
// merged/, and the sentences of the last errors.
//
// # One table
//
// The tree is one table of rows (Row): a path pattern, the kind of node, its
// mode, how long it may be believed, whether it is listed, what it does, and a
// sentence for docs/controlfs.md. There are four Go types of nodes, dirNode,
// fileNode, linkNode and treeNode, and each does nothing but ask its row. So
// "which files are there" is answered in table*.go, and nowhere else.
//
//	table.go, table_*.go   the rows            index.go    names of entries, a generation at a time
//	row.go                 rows and their trie encode.go   names to file names and back
//	node.go, dir.go        the nodes           parse.go    what may be written into a text file
//	value.go               text, raw, ctl      stream.go   diff.tar and changes
//	between.go             diff/a..b            packed.go   diff.tar.gz and the like
//	create.go, rename.go, byname.go, draft.go  what mkdir, mv, ln and drafts mean
//	transfer.go            archives in and out  usage.go    what objects take
//	ctl.go, ctl_store.go   verbs                jobs.go     those that last
//	merged.go              mounts held         errlog.go   errno, sentence, error_log
//	walk.go                the tree without FUSE
//
// # Consistency
//
// Every look-up, listing and open is one store.View: what it shows is one
// state of the store. A file's value is taken when it is opened and stays for
// that handle. Nothing is cached here but an index of entry names, rebuilt for
// each generation.
//
// # Order of steps, and what a kill leaves
//
// Changes of records are one store.Update each: done or not done. What is
// made of several steps:
//
//	diff.tar  stage (the store's extract area) → write … → commit, one step of
//	          the store. A kill before it leaves a stage that the next opener sweeps.
//	drafts    in memory, but for a stage made by their diff.tar; the rename
//	          makes the object by one call of the store. Without a mount:
//	          draft_kept.go.
//	merged/   store.Mount, then remembered in held. A kill in between or later
//	          leaves a count that `echo 'umount force' > ctl` sets to zero.
//
// # Locks
//
//	handle.mu → FS.mu → (none)
//	draft.mu  → FS.mu
//	errLog.mu, eventCache.mu, sizeCache.mu, usageCache.mu, jobs.mu,
//	damageCache.mu, treeNode.mu
//
// handle.mu guards one open file and is held while its value is committed; it
// is never taken with FS.mu held. FS.mu guards the maps of FS and is never
// held over a call of the store, a driver, or Trees. No lock of this package
// is held while a store transaction waits, but handle.mu and draft.mu, which
// belong to one file.
package fsview
