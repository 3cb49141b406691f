package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/plyfs/plyfs/internal/durable"
	"github.com/plyfs/plyfs/internal/errno"
)

// UserDir says which of the directories that belong to their users is meant.
type UserDir uint8

// The directories; see ContainerDir, ContainerRunDir, ImageDir, ImageRunDir.
const (
	DirOfContainer UserDir = iota
	RunDirOfContainer
	DirOfImage
	RunDirOfImage
)

// UserDirPath returns the directory of the object that ref refers to, making it.
func (s *Store) UserDirPath(ctx context.Context, d UserDir, ref string) (string, error) {
	switch d {
	case DirOfContainer:
		return s.ContainerDir(ctx, ref)
	case RunDirOfContainer:
		return s.ContainerRunDir(ctx, ref)
	case DirOfImage:
		return s.ImageDir(ctx, ref)
	case RunDirOfImage:
		return s.ImageRunDir(ctx, ref)
	}
	return "", errno.New(errno.ErrBadValue, "there is no user's directory number %d", d)
}

// OpenUserFile opens a file of an object's directory for reading; it is the
// caller's. name is relative, with slashes; no symlink leads out of the
// directory. ErrUnknown when the object or the file is not there.
func (s *Store) OpenUserFile(ctx context.Context, d UserDir, ref, name string) (_ *os.File, err error) {
	root, err := s.openUserDir(ctx, d, ref, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = also(err, root.Close()) }()
	f, err := root.Open(filepath.FromSlash(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, errno.New(errno.ErrUnknown, "there is no file %q in %s: %w", short(name), root.Name(), err)
	}
	if err != nil {
		return nil, fmt.Errorf("open a file of %q: %w", ref, err)
	}
	return f, nil
}

// WriteUserFile replaces a file of an object's directory, whole and durably,
// and makes the directories that name goes through. See OpenUserFile.
func (s *Store) WriteUserFile(ctx context.Context, d UserDir, ref, name string, data []byte) (err error) {
	root, err := s.openUserDir(ctx, d, ref, name)
	if err != nil {
		return err
	}
	defer func() { err = also(err, root.Close()) }()
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(filepath.FromSlash(dir), 0o700); err != nil {
			return fmt.Errorf("write a file of %q: %w", ref, err)
		}
	}
	temp := path.Join(path.Dir(name), durable.TempPrefix+rand.Text())
	err = fillUserFile(root, temp, data)
	if err == nil {
		err = root.Rename(filepath.FromSlash(temp), filepath.FromSlash(name))
	}
	if err != nil {
		_ = root.Remove(filepath.FromSlash(temp)) // the first error counts
		return fmt.Errorf("write a file of %q: %w", ref, err)
	}
	return durable.SyncDir(filepath.Join(root.Name(), filepath.FromSlash(path.Dir(name))))
}

func fillUserFile(root *os.Root, name string, data []byte) error {
	f, err := root.OpenFile(filepath.FromSlash(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (s *Store) openUserDir(ctx context.Context, d UserDir, ref, name string) (*os.Root, error) {
	if !filepath.IsLocal(filepath.FromSlash(name)) || path.Clean(name) == "." {
		return nil, errno.New(errno.ErrBadValue, "%q is no name of a file in a directory; give a relative path without ..", short(name))
	}
	dir, err := s.UserDirPath(ctx, d, ref)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the directory of %q: %w", ref, err)
	}
	return root, nil
}
