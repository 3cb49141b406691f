//go:build linux && !portable

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// removeDepth is how deep removeTree walks before it moves what is below
	// up to the tree's own root, which bounds its descriptors.
	removeDepth = 32
	// removeBatch is how many entries are read between two looks at ctx.
	removeBatch = 512
)

// removeTree removes the directory at path with all that is in it, following
// nothing. A missing path is no error. When ctx ends it returns ctx's error
// and leaves the rest.
func removeTree(ctx context.Context, path string) error {
	root, err := openDir(unix.AT_FDCWD, path)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	r := &remover{ctx: ctx, root: root}
	for r.again = true; r.again && err == nil; {
		r.again = false
		if err = r.empty(root, 0); err == nil {
			_, err = root.Seek(0, io.SeekStart)
		}
	}
	if err = errors.Join(err, root.Close()); err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

type remover struct {
	ctx   context.Context
	root  *os.File
	deep  int  // directories moved up so far
	again bool // something was moved up: root must be read again
}

// openDir opens a directory, making it readable when it is not.
func openDir(at int, name string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(at, name, flags, 0)
	if errors.Is(err, unix.EACCES) && unix.Fchmodat(at, name, 0o700, 0) == nil {
		fd, err = unix.Openat(at, name, flags, 0)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// empty removes what is in dir. Some filesystems skip entries of a directory
// that shrinks while it is read; the caller's rmdir tells, and it tries again.
func (r *remover) empty(dir *os.File, depth int) error {
	for {
		names, err := dir.Readdirnames(removeBatch)
		for _, name := range names {
			if err := r.ctx.Err(); err != nil {
				return err
			}
			if err := r.one(dir, name, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// one removes an entry of dir.
func (r *remover) one(dir *os.File, name string, depth int) error {
	fd := int(dir.Fd())
	err := unix.Unlinkat(fd, name, 0)
	if errors.Is(err, unix.EACCES) && dir.Chmod(0o700) == nil {
		err = unix.Unlinkat(fd, name, 0)
	}
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM):
		return &os.PathError{Op: "unlink", Path: name, Err: err}
	}
	if depth >= removeDepth {
		return r.moveUp(fd, name)
	}
	return r.subdir(dir, name, depth)
}

func (r *remover) subdir(dir *os.File, name string, depth int) error {
	const tries = 3 // see empty
	var err error
	for range tries {
		sub, oerr := openDir(int(dir.Fd()), name)
		if oerr != nil {
			return &os.PathError{Op: "open", Path: name, Err: oerr}
		}
		err = errors.Join(r.empty(sub, depth+1), sub.Close())
		if err != nil {
			return err
		}
		err = unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
		if !errors.Is(err, unix.ENOTEMPTY) {
			break
		}
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "rmdir", Path: name, Err: err}
	}
	return nil
}

// moveUp renames a deep directory into the root of the tree.
func (r *remover) moveUp(fd int, name string) error {
	for {
		to := ".deep" + strconv.Itoa(r.deep)
		r.deep++
		err := unix.Renameat2(fd, name, int(r.root.Fd()), to, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "rename", Path: name, Err: err}
		}
		r.again = true
		return nil
	}
}
