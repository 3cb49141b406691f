//go:build linux && !portable

package safefs

import (
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// File is a bare descriptor of a file, which the runtime's poller does not know,
// so that opening one is one system call. Its methods may be called from
// several goroutines; Close must come last.
type File struct {
	fd   int
	name string
}

// Create makes the regular file name, which must not be there (EEXIST), and
// opens it for writing. perm counts less the umask.
func (d *Dir) Create(name string, perm uint32) (*File, error) {
	if err := check("create", name); err != nil {
		return nil, err
	}
	fd, err := openRetry(d.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, perm)
	if err != nil {
		return nil, fail("create", name, err)
	}
	return &File{fd, name}, nil
}

// OpenFile opens what is there under name for reading; a symlink is ELOOP, and
// neither a FIFO nor a device makes it wait.
func (d *Dir) OpenFile(name string) (*File, error) {
	if err := check("open", name); err != nil {
		return nil, err
	}
	fd, err := openRetry(d.fd, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fail("open", name, err)
	}
	return &File{fd, name}, nil
}

// ReadAt reads at off, like io.ReaderAt: less than len(b) only with an error,
// io.EOF at the end.
func (f *File) ReadAt(b []byte, off int64) (int, error) {
	for done := 0; ; {
		n, err := unix.Pread(f.fd, b[done:], off+int64(done))
		done += max(n, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return done, fail("read", f.name, err)
		case done == len(b):
			return done, nil
		case n == 0:
			return done, io.EOF
		}
	}
}

// Seek is lseek(2), for SEEK_DATA and SEEK_HOLE; ReadAt and WriteAt mind no
// position.
func (f *File) Seek(off int64, whence int) (int64, error) {
	off, err := unix.Seek(f.fd, off, whence)
	return off, fail("seek", f.name, err)
}

// WriteAt writes all of b at off, like io.WriterAt.
func (f *File) WriteAt(b []byte, off int64) (int, error) {
	for done := 0; ; {
		n, err := unix.Pwrite(f.fd, b[done:], off+int64(done))
		done += max(n, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return done, fail("write", f.name, err)
		case done == len(b):
			return done, nil
		case n == 0:
			return done, fail("write", f.name, io.ErrShortWrite)
		}
	}
}

// Truncate sets the length; what is added is a hole.
func (f *File) Truncate(size int64) error {
	return fail("truncate", f.name, retry(func() error { return unix.Ftruncate(f.fd, size) }))
}

// Stat returns the file's attributes.
func (f *File) Stat() (Stat, error) { return statAt(f.fd, "", 0) }

// Chown sets the owner; the kernel clears set-ID bits and capabilities.
func (f *File) Chown(uid, gid int) error {
	return fail("chown", f.name, retry(func() error { return unix.Fchown(f.fd, uid, gid) }))
}

// Chmod sets the permission bits (07777).
func (f *File) Chmod(mode uint32) error {
	return fail("chmod", f.name, retry(func() error { return unix.Fchmod(f.fd, mode) }))
}

// Utimens sets the times; a zero Time leaves that time alone.
func (f *File) Utimens(atime, mtime time.Time) error {
	ts := [2]unix.Timespec{timespec(atime), timespec(mtime)}
	return fail("utimens", f.name, retry(func() error { return futimens(f.fd, &ts) }))
}

// Getxattr is Dir.Getxattr for the file.
func (f *File) Getxattr(attr string) ([]byte, error) {
	v, err := fetch(func(b []byte) (int, error) { return unix.Fgetxattr(f.fd, attr, b) })
	return v, failAttr("getxattr", attr, f.name, err)
}

// Setxattr sets an extended attribute.
func (f *File) Setxattr(attr string, value []byte) error {
	return fail("setxattr "+attr, f.name, retry(func() error { return unix.Fsetxattr(f.fd, attr, value, 0) }))
}

// Removexattr removes an extended attribute.
func (f *File) Removexattr(attr string) error {
	return fail("removexattr "+attr, f.name, retry(func() error { return unix.Fremovexattr(f.fd, attr) }))
}

// ListxattrTo is Dir.ListxattrTo for the file.
func (f *File) ListxattrTo(buf []byte) ([]byte, error) { return listOwn(f.fd, f.name, buf) }

// Sync makes the file's content and attributes durable.
func (f *File) Sync() error {
	return fail("sync", f.name, retry(func() error { return unix.Fsync(f.fd) }))
}

// Close gives the descriptor back.
func (f *File) Close() error {
	fd := f.fd
	f.fd = -1
	return fail("close", f.name, unix.Close(fd))
}
