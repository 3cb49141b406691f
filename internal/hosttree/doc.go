// Package hosttree shows a directory of the host as a tree of vnodes that can
// be read and written: the control tree's merged/, dir/ and rundir/.
//
// # The backing may change unseen
//
// Another program may have the same directory, so nothing is believed: every
// answer has vnode.ValidNone, and nothing is kept open between two calls but
// the files that a caller opened. (An idle descriptor would also make the
// unmount of the backing fail with EBUSY.)
//
// A file is remembered by identity, the device and inode numbers of the
// backing, and by the place where it was seen last: its parent and its name.
// Each call opens the window's directory, walks down with openat2 (beneath,
// following no symlink) and compares the identity. A file that is elsewhere
// by now is ESTALE; the kernel then looks its path up again, which tells us
// the new place. No symlink is ever followed, so none leads out.
//
// Ino mixes the window's key with the identity, so that two windows do not
// collide.
//
// # Owners
//
// With Options.Owners what is created belongs to the caller, as on any
// filesystem: the entry is made by this process, then given away (chown), then
// gets its mode (chown clears set-ID bits). In a directory with the
// set-group-ID bit the group stays as the backing gave it. A directory with a
// default ACL decides the mode itself. A kill in between leaves an entry that
// belongs to this process's user, with no more rights than asked for.
//
// With Options.Shown files are shown with the owners that a container sees,
// and chown takes those (owners.go). What is made belongs to the caller, but
// that of this process's own user, whom the container need not know, to the
// container's of the same number: what root makes is the container's root's.
//
// # Locks
//
// Window.mu guards the map of files, and each file's place and counts. It is a
// leaf and never held over a system call.
package hosttree
