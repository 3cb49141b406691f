//go:build !linux || portable

package safefs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/internal/unix"
)

// Dir is an open directory. The zero value is not usable.
//
// On this system it is an [os.Root], which no symlink leads out of. A name is
// looked at before it is opened and compared afterwards, so that a symlink that
// was put there meanwhile is not followed either.
type Dir struct {
	root *os.Root
	tree *tree
	rel  string // of root, below tree
}

// tree is the root that a Dir and those opened from it have in common: links
// and renames between two of them go through it.
type tree struct {
	root *os.Root
	refs atomic.Int64
}

// OpenRoot opens the directory at path, which is the caller's own and trusted:
// symlinks in it are followed. Everything below is reached through the result.
func OpenRoot(name string) (*Dir, error) {
	top, err := os.OpenRoot(name)
	if err != nil {
		return nil, fail("open directory", name, err)
	}
	t := &tree{root: top}
	return t.open(top, ".", ".")
}

// open returns a Dir for name below at, which is rel below the tree's root.
func (t *tree) open(at *os.Root, name, rel string) (*Dir, error) {
	root, err := at.OpenRoot(name)
	if err != nil {
		if t.refs.Load() == 0 {
			err = errors.Join(err, t.root.Close())
		}
		return nil, fail("open directory", name, err)
	}
	t.refs.Add(1)
	return &Dir{root, t, rel}, nil
}

// FromFile returns a Dir for the directory that f is open on. f stays the
// caller's and may be closed before the Dir. Its path must still lead to it.
func FromFile(f *os.File) (*Dir, error) {
	d, err := OpenRoot(f.Name())
	if err != nil {
		return nil, err
	}
	want, err := f.Stat()
	got, err2 := d.root.Stat(".")
	if err = errors.Join(err, err2); err == nil && !os.SameFile(want, got) {
		err = syscall.ENOENT
	}
	if err != nil {
		return nil, fail("open directory", f.Name(), errors.Join(err, d.Close()))
	}
	return d, nil
}

// Close gives the descriptor back. The Dir must not be used afterwards.
func (d *Dir) Close() error {
	err := d.root.Close()
	if d.tree.refs.Add(-1) == 0 {
		err = errors.Join(err, d.tree.root.Close())
	}
	return fail("close", ".", err)
}

// Dup returns a second Dir for the same directory.
func (d *Dir) Dup() (*Dir, error) { return d.tree.open(d.root, ".", d.rel) }

// OpenDir opens the directory name ("." for another descriptor of d). A
// symlink is ENOTDIR, as is anything else that is no directory.
func (d *Dir) OpenDir(name string) (*Dir, error) {
	if err := checkOrDot("open directory", name); err != nil {
		return nil, err
	}
	want, err := d.root.Lstat(name)
	if err == nil && !want.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, fail("open directory", name, err)
	}
	sub, err := d.tree.open(d.root, name, path.Join(d.rel, name))
	if err != nil {
		return nil, err
	}
	if got, err := sub.root.Stat("."); err != nil || !os.SameFile(want, got) {
		return nil, fail("open directory", name, errors.Join(syscall.ENOTDIR, err, sub.Close()))
	}
	return sub, nil
}

// OpenDirToRead is OpenDir.
func (d *Dir) OpenDirToRead(name string) (*Dir, error) { return d.OpenDir(name) }

// Open opens name ("." for reading d itself) with open(2)'s flags: a symlink
// is ELOOP. perm counts with O_CREAT, less the umask.
func (d *Dir) Open(name string, flags int, perm uint32) (*os.File, error) {
	if err := checkOrDot("open", name); err != nil {
		return nil, err
	}
	before, err := d.root.Lstat(name)
	if err == nil && before.Mode()&fs.ModeSymlink != 0 {
		return nil, fail("open", name, syscall.ELOOP)
	}
	if errors.Is(err, fs.ErrNotExist) && flags&unix.O_CREAT != 0 {
		flags |= unix.O_EXCL // a symlink that comes meanwhile is not followed
	}
	f, err := d.root.OpenFile(name, flags&^unix.O_DIRECTORY, os.FileMode(perm&0o777))
	if err != nil {
		return nil, fail("open", name, err)
	}
	opened, err := f.Stat()
	switch {
	case err != nil:
	case before != nil && !os.SameFile(before, opened):
		err = syscall.ELOOP
	case flags&unix.O_DIRECTORY != 0 && unix.O_DIRECTORY != 0 && !opened.IsDir():
		err = syscall.ENOTDIR
	default:
		return f, nil
	}
	return nil, fail("open", name, errors.Join(err, f.Close()))
}

// Sync makes the directory's entries durable, where the system can.
func (d *Dir) Sync() (err error) {
	f, err := d.root.Open(".")
	if err != nil {
		return fail("sync", ".", err)
	}
	return fail("sync", ".", errors.Join(syncOpen(f), f.Close()))
}

// ReadDir calls yield for every entry of d but "." and "..", in the
// filesystem's order, and ends with yield's error if it gives one. Each call
// reads from the start, a buffer at a time. Ino is 0.
func (d *Dir) ReadDir(yield func(Entry) error) (err error) {
	f, err := d.root.Open(".")
	if err != nil {
		return fail("readdir", ".", err)
	}
	defer func() { err = errors.Join(err, fail("close", ".", f.Close())) }()
	for {
		entries, err := f.ReadDir(512)
		for _, e := range entries {
			if err := yield(Entry{Name: e.Name(), Type: typeOf(e.Type())}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fail("readdir", ".", err)
		}
	}
}

// ReadNames is ReadDir of names and types (see Entry). buf is not needed.
func (d *Dir) ReadNames(_ []byte, yield func(name []byte, typ uint32) error) error {
	return d.ReadDir(func(e Entry) error { return yield([]byte(e.Name), e.Type) })
}

// Stat returns the attributes of name ("." for d itself), not following it.
func (d *Dir) Stat(name string) (Stat, error) {
	if err := checkOrDot("stat", name); err != nil {
		return Stat{}, err
	}
	info, err := d.root.Lstat(name)
	if err != nil {
		return Stat{}, fail("stat", name, err)
	}
	return fromInfo(info), nil
}

// StatFile returns the attributes of an open file.
func StatFile(f *os.File) (Stat, error) {
	info, err := f.Stat()
	if err != nil {
		return Stat{}, fail("stat", f.Name(), err)
	}
	return fromInfo(info), nil
}

// Readlink returns the text of the symlink name. EINVAL when it is none.
func (d *Dir) Readlink(name string) (string, error) {
	if err := check("readlink", name); err != nil {
		return "", err
	}
	text, err := d.root.Readlink(name)
	return text, fail("readlink", name, err)
}

// typeOf and modeOf translate modes of os, and osMode back.
func typeOf(m fs.FileMode) uint32 {
	switch m.Type() {
	case fs.ModeDir:
		return unix.S_IFDIR
	case fs.ModeSymlink:
		return unix.S_IFLNK
	case fs.ModeNamedPipe:
		return unix.S_IFIFO
	case fs.ModeSocket:
		return unix.S_IFSOCK
	case fs.ModeDevice:
		return unix.S_IFBLK
	case fs.ModeDevice | fs.ModeCharDevice:
		return unix.S_IFCHR
	}
	return unix.S_IFREG
}

func modeOf(m fs.FileMode) uint32 {
	mode := typeOf(m) | uint32(m.Perm())
	for bit, is := range modeBits() {
		if m&is != 0 {
			mode |= bit
		}
	}
	return mode
}

func osMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for bit, is := range modeBits() {
		if mode&bit != 0 {
			m |= is
		}
	}
	return m
}

func modeBits() map[uint32]fs.FileMode {
	return map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky}
}

// general is what every system tells of a file.
func general(info fs.FileInfo) Stat {
	return Stat{
		Mode: modeOf(info.Mode()), Nlink: 1, Size: uint64(info.Size()), Blocks: uint64(info.Size()+511) / 512, Blksize: 4096,
		Atime: info.ModTime(), Mtime: info.ModTime(), Ctime: info.ModTime(),
	}
}

// Chown sets the owner of name ("." for d itself), a symlink's own too. An ID
// of -1 is left alone. EPERM where files have no owners of this kind.
func (d *Dir) Chown(name string, uid, gid int) error {
	if err := checkOrDot("chown", name); err != nil {
		return err
	}
	return fail("chown", name, lchown(d.root, name, uid, gid))
}

// Chmod sets the permission bits (07777) of name ("." for d itself), as far as
// the system has them. A symlink has none: EOPNOTSUPP.
func (d *Dir) Chmod(name string, mode uint32) error {
	if err := checkOrDot("chmod", name); err != nil {
		return err
	}
	info, err := d.root.Lstat(name)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		err = syscall.EOPNOTSUPP
	}
	if err == nil {
		err = d.root.Chmod(name, osMode(mode))
	}
	return fail("chmod", name, err)
}

// Utimens sets the times of name ("." for d itself), a symlink's own where the
// system can. A zero Time leaves that time alone.
func (d *Dir) Utimens(name string, atime, mtime time.Time) error {
	if err := checkOrDot("utimens", name); err != nil {
		return err
	}
	info, err := d.root.Lstat(name)
	switch {
	case err != nil:
	case info.Mode()&fs.ModeSymlink != 0:
		err = linkTimes(d.root, name, atime, mtime)
	default:
		err = d.root.Chtimes(name, atime, mtime)
	}
	return fail("utimens", name, err)
}
