//go:build linux && !portable

package safefs

import (
	"errors"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Dir is an open directory. The zero value is not usable. See the package
// comment for what guards its descriptor.
type Dir struct {
	fd       int
	readable bool        // fd is no O_PATH one
	listed   atomic.Bool // of a readable one: its descriptor has been read through
}

// OpenRoot opens the directory at path, which is the caller's own and trusted:
// symlinks in it are followed. Everything below is reached through the result.
func OpenRoot(path string) (*Dir, error) {
	fd, err := openRetry(unix.AT_FDCWD, path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fail("open directory", path, err)
	}
	return &Dir{fd: fd}, nil
}

// FromFile returns a Dir for the directory that f is open on. f stays the
// caller's and may be closed before the Dir.
func FromFile(f *os.File) (*Dir, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, fail("open directory", f.Name(), err)
	}
	fd, openErr := -1, error(nil)
	err = conn.Control(func(p uintptr) {
		fd, openErr = openRetry(int(p), ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	})
	if err = errors.Join(err, openErr); err != nil {
		return nil, fail("open directory", f.Name(), err)
	}
	return &Dir{fd: fd}, nil
}

// Close gives the descriptor back. The Dir must not be used afterwards.
func (d *Dir) Close() error {
	fd := d.fd
	d.fd = -1
	return fail("close", ".", unix.Close(fd))
}

// Fd returns the descriptor, an O_PATH one, which stays the Dir's.
func (d *Dir) Fd() int { return d.fd }

// Dup returns a second Dir for the same directory.
func (d *Dir) Dup() (*Dir, error) {
	fd, err := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fail("dup", ".", err)
	}
	return &Dir{fd: fd}, nil
}

// OpenDir opens the directory name ("." for another descriptor of d). A
// symlink is ENOTDIR, as is anything else that is no directory.
func (d *Dir) OpenDir(name string) (*Dir, error) {
	if err := checkOrDot("open directory", name); err != nil {
		return nil, err
	}
	fd, err := openRetry(d.fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fail("open directory", name, err)
	}
	return &Dir{fd: fd}, nil
}

// OpenDirToRead is OpenDir for a directory that is to be listed: its first
// ReadDir, and reading its own attributes, cost fewer calls. The caller must
// be allowed to read it.
func (d *Dir) OpenDirToRead(name string) (*Dir, error) {
	if err := checkOrDot("open directory", name); err != nil {
		return nil, err
	}
	fd, err := openRetry(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fail("open directory", name, err)
	}
	return &Dir{fd: fd, readable: true}, nil
}

// Open opens name ("." for reading d itself) with open(2)'s flags, to which
// O_NOFOLLOW and O_CLOEXEC are added: a symlink is ELOOP. perm counts with
// O_CREAT, less the umask. A FIFO opened for reading blocks unless O_NONBLOCK
// is given: Stat first, or open what may be one with O_NONBLOCK.
func (d *Dir) Open(name string, flags int, perm uint32) (*os.File, error) {
	if err := checkOrDot("open", name); err != nil {
		return nil, err
	}
	fd, err := openRetry(d.fd, name, flags|unix.O_NOFOLLOW, perm)
	if err != nil {
		return nil, fail("open", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// OpenFD is Open for callers that keep many files: the descriptor is theirs to
// close.
func (d *Dir) OpenFD(name string, flags int, perm uint32) (int, error) {
	if err := checkOrDot("open", name); err != nil {
		return -1, err
	}
	fd, err := openRetry(d.fd, name, flags|unix.O_NOFOLLOW, perm)
	return fd, fail("open", name, err)
}

// OpenTemp makes a file without a name in d (O_TMPFILE), open for reading and
// writing, which Ref.Link can give a name. EOPNOTSUPP where the filesystem
// has none.
func (d *Dir) OpenTemp(perm uint32) (*Ref, error) {
	fd, err := openRetry(d.fd, ".", unix.O_TMPFILE|unix.O_RDWR, perm)
	if err != nil {
		return nil, fail("open temporary file", ".", err)
	}
	return OpenedRef(fd), nil
}

// Ref opens name ("." for d itself) as it is, a symlink too, without reading it.
func (d *Dir) Ref(name string) (*Ref, error) {
	if err := checkOrDot("open", name); err != nil {
		return nil, err
	}
	fd, err := openRetry(d.fd, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fail("open", name, err)
	}
	return &Ref{fd: fd}, nil
}

// Self returns d as a Ref, whose calls need no right to search d. It shares d's
// descriptor and must not be closed.
func (d *Dir) Self() *Ref { return &Ref{fd: d.fd, open: d.readable} }

// Sync makes the directory's entries durable.
func (d *Dir) Sync() error {
	fd, err := openRetry(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fail("sync", ".", err)
	}
	err = unix.Fsync(fd)
	return fail("sync", ".", errors.Join(err, unix.Close(fd)))
}

func openRetry(dirfd int, name string, flags int, perm uint32) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags|unix.O_CLOEXEC, perm)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// retry repeats a system call that was interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
