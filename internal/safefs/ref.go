//go:build linux && !portable

package safefs

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Ref is an open file of any type, held without access to its content
// (O_PATH): it stays the same file whatever happens to its names.
type Ref struct{ fd int }

// Close gives the descriptor back. The Ref must not be used afterwards.
func (r *Ref) Close() error {
	fd := r.fd
	r.fd = -1
	return fail("close", "", unix.Close(fd))
}

// Fd returns the descriptor, an O_PATH one, which stays the Ref's.
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
	if s, err := r.Stat(); err != nil || s.Type() == unix.S_IFLNK {
		if err == nil {
			err = fail("open", "", syscall.ELOOP)
		}
		return nil, err
	}
	fd, err := openRetry(unix.AT_FDCWD, procFd(r.fd), flags&^unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fail("open", "", err)
	}
	return os.NewFile(uintptr(fd), procFd(r.fd)), nil
}

// Dir returns a Dir for the directory that r is.
func (r *Ref) Dir() (*Dir, error) {
	fd, err := openRetry(r.fd, ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fail("open directory", "", err)
	}
	return &Dir{fd}, nil
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
