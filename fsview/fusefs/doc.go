// Package fusefs serves a tree of vnode.Nodes through the kernel's FUSE
// device. It is an adapter: it knows requests, node IDs, handles and caches,
// and nothing of what the nodes mean.
//
// # Inodes
//
// The kernel names a file by a node ID of ours. The table gives one node ID
// to all nodes of one Ino, so that every name of a file shares one page
// cache, and counts the look-ups that the kernel owes a FORGET for:
//
//	byID   node ID → inode{node, Ino, look-ups, open handles}
//	byIno  Ino     → the same inode
//
// Node IDs count up from 2 (1 is the root) and are never used again, so the
// generation number of every inode is 1. When the count falls to 0 the inode
// leaves both maps and its node's Forget is called, once.
//
// # Caches
//
// vnode.ValidForever becomes a timeout of a year. vnode.ValidStore becomes
// the same where the kernel knows FUSE_NOTIFY_INC_EPOCH (Linux 6.16), else
// zero. Invalidate, for a new generation, in this order:
//
//  1. the count `epoch` moves: a reply still being made under the old one
//     will carry zero validity;
//  2. attributes answered with ValidStore since the last time are dropped,
//     inode by inode (NOTIFY_INVAL_INODE with a negative offset: attributes
//     only, takes no lock that a request can hold);
//  3. NOTIFY_INC_EPOCH: every name in the kernel's cache is asked for again
//     at its next use, also one whose answer is still on its way;
//     An inode that the kernel did not have yet in step 2 may be made by such
//     an answer; its notice is repeated until it is there or forgotten.
//  4. only then does Invalidate return, and the caller shows the generation.
//
// A directory whose children are ValidStore is never answered with
// READDIRPLUS attributes: the kernel stamps those names when it links them,
// after the reply, so a list made before step 3 could pass for fresh. Entries
// that are Fixed are: their names cannot become wrong. ADR 0041 has the
// measurements.
//
// Directories have no handles: OPENDIR is answered ENOSYS, READDIR names a place
// in the list. The kernel keeps the copies of listings (vnode.Lister) that the
// answer at their end allows:
//
//  1. READDIR from the beginning: the generation is looked at, then the list is
//     read, and its digest noted for the thread that asks;
//  2. READDIR at the end: the copy is noted as allowed if no other thread may hold
//     an answer of step 1, and then the generation must still be the same;
//  3. Invalidate drops all copies that were noted, in its step 2 (NOTIFY_INVAL_INODE
//     from offset 0, which takes the locks of their pages; one that a program
//     does not let go of is given up after two seconds, and no more are allowed).
//
// listing.go, and ADR 0044 for why a copy is never too old.
//
// A handler whose node changed the store tells the kernel before it answers
// (Options.Generation), so that a program reads what it wrote. Both notices
// are sent by the one goroutine that runs notify, never by a handler itself.
//
// # Files that the kernel reads by itself
//
// A file whose handle is vnode.Backed is read by the kernel from the backing file
// (FUSE passthrough), where it may be: permissions are checked at OPEN as ever. While
// an inode is open it is either that or asked for, for everybody; OPEN counts before
// it is answered, RELEASE takes back (passing.go).
//
// # Who reads requests
//
// internal/fusewire where it can answer a program that asks one thing after the other
// on that program's processor and where that thread can be called back at any time
// (root), else go-fuse (an ordinary user's server, one processor, Options.Trace). What
// changes something is never answered by that thread.
//
// # Locks
//
//	Server.table.mu   the two maps, every inode's counts, handles, armed and copied
//	Server.handles.mu the handle map
//	Server.shelf.mu   the lists that were read last
//	Server.passing.mu which files are open, and how (passing.go)
//
// They are leaves: none is held while another is taken, while a node is
// called, or while anything is written to the device. Under passing.mu the kernel
// is given backing files (an ioctl that waits for nothing).
//
// # Life
//
// New, then Serve with a descriptor from Mount (or from fusermount3 through
// internal/userns). Serve returns when the mount is gone; by then every
// handle has been released and every node forgotten. A kill of the process at
// any moment leaves a mount that answers ENOTCONN, which Mount recognizes and
// Unmount removes.
package fusefs
