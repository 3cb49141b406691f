//go:build !linux || portable

package safefs

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// File is an open file. Its methods may be called from several goroutines;
// Close must come last.
type File struct {
	f    *os.File
	dir  *Dir // its own
	name string
}

// Create makes the regular file name, which must not be there (EEXIST), and
// opens it for writing. perm counts less the umask.
func (d *Dir) Create(name string, perm uint32) (*File, error) {
	return d.file(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
}

// OpenFile opens what is there under name for reading; a symlink is ELOOP.
func (d *Dir) OpenFile(name string) (*File, error) { return d.file(name, os.O_RDONLY, 0) }

func (d *Dir) file(name string, flags int, perm uint32) (*File, error) {
	f, err := d.Open(name, flags, perm)
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

// WriteAt writes all of b at off, like io.WriterAt.
func (f *File) WriteAt(b []byte, off int64) (int, error) { return f.f.WriteAt(b, off) }

// Truncate sets the length; what is added is a hole.
func (f *File) Truncate(size int64) error { return f.f.Truncate(size) }

// Stat returns the file's attributes.
func (f *File) Stat() (Stat, error) {
	info, err := f.f.Stat()
	if err != nil {
		return Stat{}, fail("stat", f.name, err)
	}
	return fromInfo(info), nil
}

// Chown sets the owner.
func (f *File) Chown(uid, gid int) error { return f.dir.Chown(f.name, uid, gid) }

// Chmod sets the permission bits (07777).
func (f *File) Chmod(mode uint32) error { return f.dir.Chmod(f.name, mode) }

// Utimens sets the times; a zero Time leaves that time alone.
func (f *File) Utimens(atime, mtime time.Time) error { return f.dir.Utimens(f.name, atime, mtime) }

// Setxattr is EOPNOTSUPP on this system.
func (f *File) Setxattr(attr string, _ []byte) error {
	return fail("setxattr "+attr, f.name, syscall.EOPNOTSUPP)
}

// Removexattr is EOPNOTSUPP on this system.
func (f *File) Removexattr(attr string) error {
	return fail("removexattr "+attr, f.name, syscall.EOPNOTSUPP)
}

// Sync makes the file's content and attributes durable.
func (f *File) Sync() error { return syncOpen(f.f) }

// Close gives the descriptor back.
func (f *File) Close() error { return errors.Join(f.f.Close(), f.dir.Close()) }
