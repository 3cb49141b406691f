package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/internal/idmap"
)

// ParentOwners returns the owners of the directories above a layer's mount
// point that the layer's ID maps have no ID for, sorted, as the peers do: who
// runs the layer with its maps must let these pass. ref is what Mounted takes.
// Both are empty for a layer that is not mounted, or has no maps.
func (s *Store) ParentOwners(ctx context.Context, ref string) (uids, gids []int, err error) {
	var at Mountpoint
	var own idmap.Maps
	err = s.View(ctx, func(t *Tx) error {
		id, err := t.mountedLayer(ref)
		if err != nil {
			return err
		}
		at, _ = t.Mountpoint(id)
		own = t.LayerByID(id).Maps
		return nil
	})
	if err != nil || at.Count == 0 || at.Path == "" {
		return nil, nil, err
	}
	for dir := filepath.Dir(at.Path); ; dir = filepath.Dir(dir) {
		st, err := unix.Stat(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, nil, fmt.Errorf("owners of the folders above %s: %w", at.Path, err)
		}
		if err == nil {
			uids, gids = unmapped(uids, own.UIDs, st.UID), unmapped(gids, own.GIDs, st.GID)
		}
		if dir == filepath.Dir(dir) {
			slices.Sort(uids)
			slices.Sort(gids)
			return uids, gids, nil
		}
	}
}

// unmapped adds the host ID to list when the ranges lack it.
func unmapped(list []int, ranges []idmap.Range, id uint32) []int {
	if _, ok := idmap.Inverse(ranges, int(id)); ok || slices.Contains(list, int(id)) {
		return list
	}
	return append(list, int(id))
}
