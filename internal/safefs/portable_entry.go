//go:build !linux || portable

package safefs

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/internal/unix"
)

// Mkdir makes the directory name; mode is less the umask.
func (d *Dir) Mkdir(name string, mode uint32) error {
	if err := check("mkdir", name); err != nil {
		return err
	}
	return fail("mkdir", name, d.root.Mkdir(name, os.FileMode(mode&0o777)))
}

// Mknod makes an empty regular file; other types are EOPNOTSUPP on this system.
func (d *Dir) Mknod(name string, mode uint32, _ uint64) error {
	if err := check("mknod", name); err != nil {
		return err
	}
	if t := mode & unix.S_IFMT; t != unix.S_IFREG && t != 0 {
		return fail("mknod", name, syscall.EOPNOTSUPP)
	}
	f, err := d.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, os.FileMode(mode&0o777))
	if err != nil {
		return fail("mknod", name, err)
	}
	return fail("mknod", name, f.Close())
}

// Symlink makes the symlink name with the given text, whatever it says.
func (d *Dir) Symlink(target, name string) error {
	if err := check("symlink", name); err != nil {
		return err
	}
	return fail("symlink", name, d.root.Symlink(target, name))
}

// Link gives d's file name, a symlink's own too, the further name newName in
// to. EXDEV when the two were not opened from one root.
func (d *Dir) Link(name string, to *Dir, newName string) error {
	if err := errors.Join(check("link", name), check("link", newName)); err != nil {
		return err
	}
	if d.tree != to.tree {
		return fail("link", newName, syscall.EXDEV)
	}
	return fail("link", newName, d.tree.root.Link(path.Join(d.rel, name), path.Join(to.rel, newName)))
}

// Unlink removes name, which is not a directory.
func (d *Dir) Unlink(name string) error { return d.remove("unlink", name, false) }

// Rmdir removes the empty directory name.
func (d *Dir) Rmdir(name string) error { return d.remove("rmdir", name, true) }

func (d *Dir) remove(op, name string, dir bool) error {
	if err := check(op, name); err != nil {
		return err
	}
	info, err := d.root.Lstat(name)
	switch {
	case err != nil:
	case dir && !info.IsDir():
		err = syscall.ENOTDIR
	case !dir && info.IsDir():
		err = syscall.EISDIR
	default:
		err = d.root.Remove(name)
	}
	return fail(op, name, err)
}

// Rename moves d's name to newName in to. Flags are renameat2's; those are
// EOPNOTSUPP on this system. EXDEV when the two were not opened from one root.
func (d *Dir) Rename(name string, to *Dir, newName string, flags uint) error {
	if err := errors.Join(check("rename", name), check("rename", newName)); err != nil {
		return err
	}
	switch {
	case flags != 0:
		return fail("rename", newName, syscall.EOPNOTSUPP)
	case d.tree != to.tree:
		return fail("rename", newName, syscall.EXDEV)
	}
	return fail("rename", newName, d.tree.root.Rename(path.Join(d.rel, name), path.Join(to.rel, newName)))
}

// Getxattr finds no attributes on this system: EOPNOTSUPP.
func (d *Dir) Getxattr(name, attr string) ([]byte, error) {
	return nil, fail("getxattr "+attr, name, syscall.EOPNOTSUPP)
}

// ListxattrTo is Listxattr here.
func (d *Dir) ListxattrTo(_ []byte, name string) ([]byte, error) {
	_, err := d.Listxattr(name)
	return nil, err
}

// Listxattr finds no attributes on this system: EOPNOTSUPP.
func (d *Dir) Listxattr(name string) ([]string, error) {
	return nil, fail("listxattr", name, syscall.EOPNOTSUPP)
}

// Setxattr sets no attributes on this system: EOPNOTSUPP.
func (d *Dir) Setxattr(name, attr string, _ []byte, _ int) error {
	return fail("setxattr "+attr, name, syscall.EOPNOTSUPP)
}

// Removexattr removes no attributes on this system: EOPNOTSUPP.
func (d *Dir) Removexattr(name, attr string) error {
	return fail("removexattr "+attr, name, syscall.EOPNOTSUPP)
}

// OpenDirAt opens the directory at path, relative to d, resolved as how says.
// A last component that is a symlink is followed where how follows any.
func (d *Dir) OpenDirAt(name string, how Resolve) (*Dir, error) {
	w, last, err := d.walk(name, how, true)
	if err != nil {
		return nil, fail("open directory", name, err)
	}
	sub, err := w.top().OpenDir(last)
	return sub, errors.Join(err, w.close())
}

// OpenAt opens the file at path, relative to d, with open(2)'s flags, resolved
// as how says. With O_NOFOLLOW in flags a last component that is a symlink is
// ELOOP.
func (d *Dir) OpenAt(name string, flags int, perm uint32, how Resolve) (*os.File, error) {
	follow := flags&unix.O_NOFOLLOW == 0 || unix.O_NOFOLLOW == 0
	w, last, err := d.walk(name, how, follow)
	if err != nil {
		return nil, fail("open", name, err)
	}
	f, err := w.top().Open(last, flags&^unix.O_NOFOLLOW, perm)
	return f, errors.Join(err, w.close())
}

// Place returns the path of d below top, without a slash in front; "" for top
// itself. Symlinks that led to d are not in it. EXDEV when the two were not
// opened from one root.
func (d *Dir) Place(top *Dir) (string, error) {
	if d.tree != top.tree {
		return "", fail("place", d.rel, syscall.EXDEV)
	}
	if top.rel == "." {
		return strings.TrimPrefix(d.rel, "."), nil
	}
	return strings.TrimPrefix(strings.TrimPrefix(d.rel, top.rel), "/"), nil
}

// walker is the state of a walk. stack holds the directories from the root
// down to where the walk stands; [0] is borrowed, the others owned.
type walker struct {
	how   Resolve
	stack []*Dir
	rest  []string
	links int
}

func (w *walker) top() *Dir { return w.stack[len(w.stack)-1] }

func (w *walker) close() error { return w.popTo(1) }

func (w *walker) popTo(n int) (err error) {
	for len(w.stack) > n {
		err = errors.Join(err, w.top().Close())
		w.stack = w.stack[:len(w.stack)-1]
	}
	return err
}

// walk goes to where the last component of name is, and returns that one. The
// caller closes the walker, unless there is an error.
func (d *Dir) walk(name string, how Resolve, followLast bool) (_ *walker, last string, err error) {
	if name == "" || len(name) >= maxPath || strings.IndexByte(name, 0) >= 0 {
		return nil, "", syscall.EINVAL
	}
	if strings.HasPrefix(name, "/") && how != InRoot {
		return nil, "", syscall.EXDEV
	}
	w := &walker{how: how, stack: []*Dir{d}, rest: splitPath(name)}
	for err == nil {
		if len(w.rest) == 0 {
			return w, ".", nil
		}
		next := w.rest[0]
		w.rest = w.rest[1:]
		switch {
		case next == ".":
		case next == "..":
			err = w.up()
		case len(w.rest) == 0 && (!followLast || !w.isLink(next)):
			return w, next, nil
		default:
			err = w.down(next)
		}
	}
	return nil, "", errors.Join(err, w.close())
}

func (w *walker) isLink(name string) bool {
	info, err := w.top().root.Lstat(name)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

func (w *walker) up() error {
	if len(w.stack) > 1 {
		return w.popTo(len(w.stack) - 1)
	}
	if w.how == InRoot {
		return nil
	}
	return syscall.EXDEV
}

// down enters name, or puts a symlink's text in front of what is left.
func (w *walker) down(name string) error {
	if !w.isLink(name) {
		sub, err := w.top().OpenDir(name)
		if err == nil {
			w.stack = append(w.stack, sub)
		}
		return err
	}
	target, err := w.top().Readlink(name)
	w.links++
	switch {
	case err != nil:
		return err
	case w.how == NoSymlinks || w.links > maxSymlinks:
		return syscall.ELOOP
	case strings.HasPrefix(target, "/") && w.how != InRoot:
		return syscall.EXDEV
	case strings.HasPrefix(target, "/"):
		if err := w.popTo(1); err != nil {
			return err
		}
	}
	w.rest = append(splitPath(target), w.rest...)
	return nil
}
