package unix

import "golang.org/x/sys/unix"

// File types, in a mode.
const (
	S_IFMT   = unix.S_IFMT
	S_IFREG  = unix.S_IFREG
	S_IFDIR  = unix.S_IFDIR
	S_IFLNK  = unix.S_IFLNK
	S_IFCHR  = unix.S_IFCHR
	S_IFBLK  = unix.S_IFBLK
	S_IFIFO  = unix.S_IFIFO
	S_IFSOCK = unix.S_IFSOCK
)

// Flags of open(2).
const (
	O_RDONLY    = unix.O_RDONLY
	O_WRONLY    = unix.O_WRONLY
	O_RDWR      = unix.O_RDWR
	O_CREAT     = unix.O_CREAT
	O_EXCL      = unix.O_EXCL
	O_TRUNC     = unix.O_TRUNC
	O_DIRECTORY = unix.O_DIRECTORY
	O_NOFOLLOW  = unix.O_NOFOLLOW
	O_NONBLOCK  = unix.O_NONBLOCK
	O_CLOEXEC   = unix.O_CLOEXEC
)

// Flags of setxattr(2) and lseek(2).
const (
	XATTR_CREATE  = unix.XATTR_CREATE
	XATTR_REPLACE = unix.XATTR_REPLACE
	SEEK_DATA     = unix.SEEK_DATA
	SEEK_HOLE     = unix.SEEK_HOLE
)

// Errors that not every system's package syscall has.
const (
	ENODATA = unix.ENODATA
	EUCLEAN = unix.EUCLEAN
)

// Mkdev makes a device number of Linux's form.
func Mkdev(major, minor uint32) uint64 { return unix.Mkdev(major, minor) }

// Major returns the major part of a device number.
func Major(dev uint64) uint32 { return unix.Major(dev) }

// Minor returns the minor part of a device number.
func Minor(dev uint64) uint32 { return unix.Minor(dev) }

// Seek is lseek(2), with SEEK_DATA and SEEK_HOLE.
func Seek(fd int, offset int64, whence int) (int64, error) { return unix.Seek(fd, offset, whence) }

// Fchown is fchown(2).
func Fchown(fd, uid, gid int) error { return unix.Fchown(fd, uid, gid) }

// Fchmod is fchmod(2).
func Fchmod(fd int, mode uint32) error { return unix.Fchmod(fd, mode) }

// Fsetxattr is fsetxattr(2).
func Fsetxattr(fd int, attr string, value []byte, flags int) error {
	return unix.Fsetxattr(fd, attr, value, flags)
}

// Syncfs makes everything on the descriptor's filesystem durable.
func Syncfs(fd int) error { return unix.Syncfs(fd) }

// ReadOnlyMount tells whether path is on a filesystem mounted read-only.
func ReadOnlyMount(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_RDONLY != 0
}
