package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
)

// Shutdown puts away what the store keeps mounted, so that nothing of it holds
// its filesystem. It returns the IDs of the layers that are still mounted: with
// any, and without force, ErrInUse and nothing is done; with force they are
// unmounted first (busy mounts are detached, whatever their counts), and those
// returned are the ones for which that failed. The store stays open and usable;
// see Close. at counts the layers that are unmounted.
func (s *Store) Shutdown(ctx context.Context, force bool, at Progress) (mounted []string, err error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	var layers []*Layer // that were unmounted
	err = s.Update(ctx, func(w *WriteTx) error {
		ids := slices.Sorted(maps.Keys(w.st.mounts.table))
		if len(ids) > 0 && !force {
			mounted = ids
			return errno.New(errno.ErrInUse, "%d layers of %s are mounted, %s first; unmount them, or use force", len(ids), s.opts.GraphRoot, ids[0])
		}
		var errs []error
		for i, id := range ids {
			at.tell(i, len(ids))
			if err := w.letGo(id); err != nil {
				mounted = append(mounted, id)
				errs = append(errs, fmt.Errorf("unmount layer %s: %w", id, err))
			} else if l := w.LayerByID(id); l != nil {
				layers = append(layers, l)
			}
		}
		if len(errs) > 0 {
			return errors.Join(errs...)
		}
		if err := drivers.Shutdown(ctx, s.driver); err != nil {
			return fmt.Errorf("shut down the driver: %w", err)
		}
		return nil
	})
	for _, l := range layers {
		err = also(err, s.forgetOldContent(ctx, l))
	}
	return mounted, err
}
