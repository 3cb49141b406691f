//go:build !linux || portable

package safefs

import (
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/internal/unix"
)

// File is an open file. Its methods may be called
// from several goroutines; Close must come last.
type File struct {
	f    *os.File
	dir  *Dir // a further one, for the times, which go by name
	name string
}

// Create makes the regular file name, which must not be there (EEXIST), and
// opens it for writing. perm counts less the umask.
func (d *Dir) Create(name string, perm uint32) (*File, error) {
	if err := check("create", name); err != nil {
		return nil, err
	}
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, os.FileMode(perm&0o777))
	return d.file(name, f, fail("create", name, err))
}

// OpenFile opens what is there under name for reading; a symlink is ELOOP.
func (d *Dir) OpenFile(name string) (*File, error) {
	f, err := d.Open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	return d.file(name, f, err)
}

func (d *Dir) file(name string, f *os.File, err error) (*File, error) {
	if err != nil {
		return nil, err
	}
	dir, err := d.Dup()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &File{f, dir, name}, nil
}

// ReadAt reads at off, like io.ReaderAt.
func (f *File) ReadAt(b []byte, off int64) (int, error) { return f.f.ReadAt(b, off) }

// Seek is lseek(2), for SEEK_DATA and SEEK_HOLE; ReadAt and WriteAt mind no
// position.
func (f *File) Seek(off int64, whence int) (int64, error) {
	off, err := unix.Seek(int(f.f.Fd()), off, whence)
	return off, fail("seek", f.name, err)
}

// WriteAt writes all of b at off, like io.WriterAt.
func (f *File) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.f.WriteAt(b, off)
	return n, fail("write", f.name, err)
}

// Truncate sets the length; what is added is a hole or zeros.
func (f *File) Truncate(size int64) error { return fail("truncate", f.name, f.f.Truncate(size)) }

// Stat returns the file's attributes.
func (f *File) Stat() (Stat, error) { return StatFile(f.f) }

// Chown sets the owner. EPERM where files have no owners of this kind.
func (f *File) Chown(uid, gid int) error {
	return fail("chown", f.name, unix.Fchown(int(f.f.Fd()), uid, gid))
}

// Chmod sets the permission bits (07777), as far as the system has them.
func (f *File) Chmod(mode uint32) error {
	return fail("chmod", f.name, f.f.Chmod(osMode(mode)))
}

// Utimens sets the times; a zero Time leaves that time alone. They go to what
// has the name now: its maker keeps others away from it.
func (f *File) Utimens(atime, mtime time.Time) error { return f.dir.Utimens(f.name, atime, mtime) }

// Getxattr finds no attributes on this system: EOPNOTSUPP.
func (f *File) Getxattr(attr string) ([]byte, error) {
	return nil, fail("getxattr "+attr, f.name, syscall.EOPNOTSUPP)
}

// Setxattr sets no attributes on this system: EOPNOTSUPP.
func (f *File) Setxattr(attr string, _ []byte) error {
	return fail("setxattr "+attr, f.name, syscall.EOPNOTSUPP)
}

// Removexattr removes no attributes on this system: EOPNOTSUPP.
func (f *File) Removexattr(attr string) error {
	return fail("removexattr "+attr, f.name, syscall.EOPNOTSUPP)
}

// ListxattrTo lists no attributes on this system: EOPNOTSUPP.
func (f *File) ListxattrTo([]byte) ([]byte, error) {
	return nil, fail("listxattr", f.name, syscall.EOPNOTSUPP)
}

// Sync makes the file's content and attributes durable.
func (f *File) Sync() error { return fail("sync", f.name, f.f.Sync()) }

// Close gives the descriptors back.
func (f *File) Close() error { return fail("close", f.name, errors.Join(f.f.Close(), f.dir.Close())) }
