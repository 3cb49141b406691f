// Package vfs is the driver that needs nothing of a system: each layer is a
// whole tree, `<root>/vfs/dir/<ID>`, copied from its parent's (by reflink where
// the filesystem can).
//
// # Steps, and what a kill leaves
//
//	Create    mkdir stage/ID or copy of the parent      a part of the stage
//	Publish   rename stage/ID → vfs/dir/ID, fsync both  one or the other
//	Exchange  renameat2(EXCHANGE), fsync both           one or the other
//	Retire    rename vfs/dir/ID → stage/ID, fsync both  one or the other
//
// The driver holds no lock and no state.
package vfs
