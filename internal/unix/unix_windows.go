package unix

import "syscall"

// Flags of open(2) that the system lacks.
const (
	O_DIRECTORY = 0
	O_NOFOLLOW  = 0
	O_NONBLOCK  = 0
	O_CLOEXEC   = 0
)

// Errors that package syscall invents numbers for.
const (
	ENODATA = syscall.ENODATA
	EUCLEAN = syscall.EUCLEAN
)

// Fchown fails: files have no owner of this kind. EPERM is what
// ignore_chown_errors lets pass.
func Fchown(int, int, int) error { return syscall.EPERM }

// Fchmod keeps what the system has of a mode: whether the file is read-only.
func Fchmod(int, uint32) error { return nil }

// Syncfs cannot be had for a whole volume without privilege; files that must
// last are synced one by one.
func Syncfs(int) error { return nil }
