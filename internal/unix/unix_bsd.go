//go:build unix && !linux

package unix

import "golang.org/x/sys/unix"

// Flags of open(2) that systems of this kind have.
const (
	O_DIRECTORY = unix.O_DIRECTORY
	O_NOFOLLOW  = unix.O_NOFOLLOW
	O_NONBLOCK  = unix.O_NONBLOCK
	O_CLOEXEC   = unix.O_CLOEXEC
)

// ENODATA is what the system calls a missing extended attribute.
const ENODATA = unix.ENOATTR

// Fchown is fchown(2).
func Fchown(fd, uid, gid int) error { return unix.Fchown(fd, uid, gid) }

// Fchmod is fchmod(2).
func Fchmod(fd int, mode uint32) error { return unix.Fchmod(fd, mode) }

// Syncfs makes everything durable: there is no call for one filesystem.
func Syncfs(int) error { return unix.Sync() }
