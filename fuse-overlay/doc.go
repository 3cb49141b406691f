// Package fuseoverlay is one tree over many: a union of layer directories by
// the rules of the Linux kernel's overlay filesystem. docs/overlay.md is its
// behaviour for users, with every deviation. It knows nothing of stores.
//
// What exists is the read-only engine: Open takes layers, top first, and the
// tree's nodes are vnode.Node values, served in process (`tree/` of the
// control filesystem) or, later, by the mount program of our own.
//
// # Words
//
// A layer is a directory that somebody filled. A place is a directory inside a
// layer: the layer, and the place above it with a name. A spot is a place with
// a name: where one file of one layer lies. A directory node has a stack of
// places, top first, whose union it is; every other node has one spot, and a
// second one for its data when it is a metadata-only copy (metacopy).
//
// # Files
//
//	tree.go     Config, Open, the root, what all nodes share
//	marks.go    decoding of marks (names, attribute values): pure
//	merge.go    the search through the layers, as decisions: pure
//	probe.go    what one layer has under one name: the system calls for merge
//	lookup.go   the search carried out: places → spots → nodes
//	place.go    places and the bounded cache of their descriptors
//	node.go     the node types; attr.go, xattr.go, handle.go their methods
//	moved.go    positions of files, and of those that others move
//	readdir.go  listing of a merged directory
//
// # Look-ups
//
// A look-up asks only the places of its directory's stack, top first, until a
// mark or a file ends the search. A directory of which one layer knows has a
// stack of one, and so has everything below it: a file deep in one layer of
// 500 costs a statx and (but in the bottom layer) a listxattr, like one in a
// single layer. No directory is listed to find one name in it.
//
// # Descriptors
//
// Backing files are reached through internal/safefs by the descriptor of their
// place. Those are a cache of bounded size (Cache), shared by the trees that
// are given the same one; a place whose descriptor was let go is opened again
// from the place above it, and refused (ESTALE) when it is not the same
// directory any more. No descriptor is held between calls but in the cache and
// in open handles.
//
// # Identity
//
// A node's number is inomap's of (key of the tree; layer, device, inode), so
// two names of one file in one layer are one node. It is known in a listing
// from d_ino, on filesystems whose d_ino is stat's; on others (overlay, FUSE)
// each entry is looked at.
//
// # Locks
//
// Nodes never change after they are made, except for two atomic pointers: seen
// (one look-up's stat, taken by the first Attr) and where (the file's position,
// replaced as a whole). A method loads the position once. So today the order
// is short, two leaves that are never held together:
//
//	moved.mu         which files of volatile layers have nodes
//	Cache.mu         the descriptors' table; no system call under it
//
// The writable overlay adds, above it, renameMu → node.dirMu (parent first) →
// node.copyMu → inomap. What it adds to the types: an upper place on top of a
// stack with writes through its descriptor; a stack and a spot that change
// under those locks (so they become fields behind accessors, which is why no
// method reaches into them but lookup.go, place.go and probe.go); plan and
// execution of copy-up in files of their own. merge.go and marks.go stay.
//
// # Failure
//
// Open reads nothing. A layer that is missing or answers EIO makes the calls
// that need it fail with a sentence that names it; nothing panics, the rest of
// the tree goes on. A look-up never passes over a layer that it could not read:
// what that layer hides would come back.
package fuseoverlay
