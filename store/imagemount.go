package store

import (
	"context"

	"github.com/plyfs/plyfs/drivers"
)

// MountImage mounts an image's layer for reading only, with what o says beside
// that, or counts one more user of the mount that is there, and returns its
// path. Errors are those of Mount, of which it is the part for images.
func (s *Store) MountImage(ctx context.Context, ref string, o drivers.MountOptions) (path string, err error) {
	id, err := s.imageID(ctx, ref)
	if err != nil {
		return "", err
	}
	o.ReadOnly, o.Volatile = true, false
	return s.mountRef(ctx, o, func(t *Tx) (mountTarget, error) { return t.imageTarget(id) })
}

// UnmountImage counts one user less of an image's mount; see Unmount.
func (s *Store) UnmountImage(ctx context.Context, ref string, force bool) (remaining int, err error) {
	id, err := s.imageID(ctx, ref)
	if err != nil {
		return 0, err
	}
	return s.unmountRef(ctx, force, func(t *Tx) (string, error) {
		target, err := t.imageTarget(id)
		if err != nil {
			return "", err
		}
		return target.layer.ID, nil
	})
}

func (s *Store) imageID(ctx context.Context, ref string) (id string, err error) {
	err = s.View(ctx, func(t *Tx) error {
		id, err = t.Resolve(KindImage, ref)
		return err
	})
	return id, err
}
