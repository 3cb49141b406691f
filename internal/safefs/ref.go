//go:build linux && !portable

package safefs

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Ref is an open file of any type, held without access to its content (O_PATH)
// unless it was made of a descriptor that has it: it stays the same file
// whatever happens to its names.
type Ref struct {
	fd   int
	open bool // not O_PATH: calls by descriptor serve
}

// OpenedRef returns a Ref that owns fd, which is open for reading or writing.
func OpenedRef(fd int) *Ref { return &Ref{fd, true} }

// Close gives the descriptor back. The Ref must not be used afterwards.
func (r *Ref) Close() error {
	fd := r.fd
	r.fd = -1
	return fail("close", "", unix.Close(fd))
}

// Fd returns the descriptor, which stays the Ref's.
func (r *Ref) Fd() int { return r.fd }

// Stat returns the file's attributes.
func (r *Ref) Stat() (Stat, error) { return statAt(r.fd, "", 0) }

// Readlink returns the text of a symlink.
func (r *Ref) Readlink() (string, error) {
	target, err := readlinkAt(r.fd, "")
	return target, fail("readlink", "", err)
}

// Open opens the file's content with open(2)'s flags, through /proc. A symlink
// is ELOOP.
func (r *Ref) Open(flags int) (*os.File, error) {
	fd, err := r.OpenFD(flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), procFd(r.fd)), nil
}

// OpenFD is Open for callers that keep many files: the descriptor is theirs to
// close.
func (r *Ref) OpenFD(flags int) (int, error) {
	s, err := r.Stat()
	if err == nil && s.Type() == unix.S_IFLNK {
		err = fail("open", "", syscall.ELOOP)
	}
	if err != nil {
		return -1, err
	}
	fd, err := openRetry(unix.AT_FDCWD, procFd(r.fd), flags&^unix.O_NOFOLLOW, 0)
	return fd, fail("open", "", err)
}

// Dir returns a Dir for the directory that r is.
func (r *Ref) Dir() (*Dir, error) {
	fd, err := openRetry(r.fd, ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fail("open directory", "", err)
	}
	return &Dir{fd: fd}, nil
}

// Link gives the file the name newName in to. ENOENT when it has no name left.
func (r *Ref) Link(to *Dir, newName string) error { return linkFd(r.fd, to, newName) }

// Chown is Dir.Chown for the file.
func (r *Ref) Chown(uid, gid int) error {
	return fail("chown", "", retry(func() error { return unix.Fchownat(r.fd, "", uid, gid, unix.AT_EMPTY_PATH) }))
}

// Chmod is Dir.Chmod for the file.
func (r *Ref) Chmod(mode uint32) error { return fail("chmod", "", r.chmod(mode)) }

func (r *Ref) chmod(mode uint32) error {
	if r.open {
		return retry(func() error { return unix.Fchmod(r.fd, mode&0o7777) })
	}
	s, err := r.Stat()
	if err != nil {
		return err
	}
	if s.Type() == unix.S_IFLNK {
		return syscall.EOPNOTSUPP
	}
	path := procFd(r.fd)
	return retry(func() error { return unix.Chmod(path, mode&0o7777) })
}

// Utimens is Dir.Utimens for the file.
func (r *Ref) Utimens(atime, mtime time.Time) error {
	ts := [2]unix.Timespec{timespec(atime), timespec(mtime)}
	return fail("utimens", "", retry(func() error {
		return unix.UtimesNanoAt(r.fd, "", ts[:], unix.AT_EMPTY_PATH)
	}))
}

// Touch sets the access time to atime and the modification time to now, by the
// filesystem's clock.
func (r *Ref) Touch(atime time.Time) error {
	ts := [2]unix.Timespec{timespec(atime), {Nsec: unix.UTIME_NOW}}
	return fail("utimens", "", retry(func() error {
		return unix.UtimesNanoAt(r.fd, "", ts[:], unix.AT_EMPTY_PATH)
	}))
}

// Dup returns a second Ref for the same file.
func (r *Ref) Dup() (*Ref, error) {
	fd, err := unix.FcntlInt(uintptr(r.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fail("dup", "", err)
	}
	return &Ref{fd, r.open}, nil
}
