package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/plyfs/plyfs/internal/durable"
	"github.com/plyfs/plyfs/internal/errno"
)

// userdata is the directory, within an object's, that belongs to its user.
const userdata = "userdata"

// ContainerDir returns the directory of a container that is its user's to
// fill, making it. It is deleted with the container.
func (s *Store) ContainerDir(ctx context.Context, ref string) (string, error) {
	return s.userDir(ctx, KindContainer, ref, s.objectDir)
}

// ContainerRunDir is ContainerDir in the run root, which a restart of the
// machine empties.
func (s *Store) ContainerRunDir(ctx context.Context, ref string) (string, error) {
	return s.userDir(ctx, KindContainer, ref, s.runObjectDir)
}

// ImageDir is ContainerDir for an image. ErrReadOnly for one of an additional
// store that has none.
func (s *Store) ImageDir(ctx context.Context, ref string) (string, error) {
	return s.userDir(ctx, KindImage, ref, s.objectDir)
}

// ImageRunDir is ContainerRunDir for an image.
func (s *Store) ImageRunDir(ctx context.Context, ref string) (string, error) {
	return s.userDir(ctx, KindImage, ref, s.runObjectDir)
}

// userDir makes the directory under the write locks, so that none is made for
// an object that is being deleted.
func (s *Store) userDir(ctx context.Context, k Kind, ref string, dirOf func(Kind, string) string) (path string, err error) {
	err = s.View(ctx, func(t *Tx) error {
		id, err := t.Resolve(k, ref)
		path = filepath.Join(dirOf(k, id), userdata)
		return err
	})
	if err != nil {
		return "", err
	}
	if fi, err := os.Stat(path); err == nil && fi.IsDir() {
		return path, nil
	}
	if s.opts.ReadOnly {
		return "", errno.New(errno.ErrReadOnly, "%s cannot be made: the store is opened read-only", path)
	}
	err = s.Update(ctx, func(w *WriteTx) error {
		id, err := w.Resolve(k, ref)
		if err != nil {
			return err
		}
		path = filepath.Join(dirOf(k, id), userdata)
		if err := os.MkdirAll(path, 0o700); err != nil {
			return fmt.Errorf("make the directory of %s %s: %w", k, id, err)
		}
		return nil
	})
	return path, err
}

// UserDirs returns where ContainerDir and ContainerRunDir would be for an
// object of kind k, made or not; what is around them holds its data items.
func (t *Tx) UserDirs(k Kind, id string) (dir, runDir string) {
	return filepath.Join(t.dataDir(k, id), userdata), filepath.Join(t.s.runObjectDir(k, id), userdata)
}

// Dirs returns the directories whose union is the layer, its own first. They
// are for reading only.
func (s *Store) Dirs(layerID string) ([]string, error) {
	if s.driver == nil {
		return nil, s.writable()
	}
	return s.driver.Dirs(layerID)
}

// StoreOf tells which store an object's record is from: 0 the own one, n the nth
// of Options.ImageStores, counted from one.
func (t *Tx) StoreOf(k Kind, id string) int {
	if k == KindLayer {
		if l := t.LayerByID(id); l != nil {
			return l.shadow
		}
	} else if i := t.ImageByID(id); k == KindImage && i != nil {
		return i.shadow
	}
	return 0
}

// dataDir is where an object's items are: for one of an additional image
// store, there.
func (t *Tx) dataDir(k Kind, id string) string {
	shadow := t.StoreOf(k, id)
	if shadow == 0 {
		return t.s.objectDir(k, id)
	}
	return t.s.shadowPath(k, shadow, id)
}

// shadowPath is a path in the directory of kind k of the nth additional image
// store, counted from one.
func (s *Store) shadowPath(k Kind, nth int, name string) string {
	return filepath.Join(s.shadowRoots(k)[nth-1], s.opts.DriverName+"-"+k.Plural(), name)
}

// syncDirs makes a directory and its own entry durable.
func syncDirs(dir string) error {
	return errors.Join(durable.SyncDir(dir), durable.SyncDir(filepath.Dir(dir)))
}
