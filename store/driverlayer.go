package store

import (
	"context"
	"fmt"

	"github.com/plyfs/plyfs/drivers"
)

// CreateStorageLayer makes a layer in the driver alone: directories that no
// record names, which is what Check finds and repairs. spec.Parent is the ID
// of a layer of the driver, with or without a record, or "". A kill leaves
// either nothing that is not swept, or the layer.
func (s *Store) CreateStorageLayer(ctx context.Context, spec LayerSpec) (id string, err error) {
	err = s.withEntry(ctx, func(entry *stageEntry) error {
		err := s.View(ctx, func(t *Tx) error {
			id, err = t.freeID(KindLayer, spec.ID)
			return err
		})
		if err != nil {
			return err
		}
		want := drivers.LayerSpec{ID: id, Parent: spec.Parent, Maps: spec.Maps}
		want.RootUID, want.RootGID = rootOwner(spec.Maps)
		if _, err := s.driver.Create(ctx, entry.stage(), want); err != nil {
			return fmt.Errorf("make layer %s: %w", id, err)
		}
		return s.Update(ctx, func(w *WriteTx) error {
			if _, err := w.freeID(KindLayer, id); err != nil {
				return err
			}
			return s.driver.Publish(entry.stage(), id)
		})
	})
	return id, err
}
