package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/mounts"
)

// Delete deletes the object that ref refers to, of whatever kind (containers
// come first, then images, then layers), without the checks that DeleteLayer,
// DeleteImage and DeleteContainer make: what refers to it is left referring to
// nothing, and a mount is detached. Of an image only the record and its data
// go, not its layers; a container takes its layer with it unless something
// else needs that. ErrUnknown, ErrReadOnly (an additional store's).
func (s *Store) Delete(ctx context.Context, ref string) error {
	return s.withEntry(ctx, func(entry *stageEntry) error {
		return s.Update(ctx, func(w *WriteTx) error {
			k, id, err := w.findIn(ref, KindContainer, KindImage, KindLayer)
			if err != nil {
				return err
			}
			return w.deleteAny(entry, k, id)
		})
	})
}

func (w *WriteTx) deleteAny(entry *stageEntry, k Kind, id string) error {
	switch k {
	case KindContainer:
		return w.deleteContainer(entry, w.ContainerByID(id))
	case KindImage:
		return w.dropObject(entry, KindImage, id, nil)
	}
	return w.dropLayer(entry, id)
}

// deleteContainer detaches what is mounted, if anything, and deletes.
func (w *WriteTx) deleteContainer(entry *stageEntry, c *Container) error {
	var layers []string
	if l := w.LayerByID(c.Layer); l != nil && w.onlyOf(l, c.ID) {
		if err := w.letGo(l.ID); err != nil {
			return fmt.Errorf("delete container %s: %w", c.ID, err)
		}
		layers = append(layers, l.ID)
	}
	return w.dropObject(entry, KindContainer, c.ID, layers)
}

// letGo ends a layer's mount by force, however many users it has.
func (w *WriteTx) letGo(id string) error {
	if _, counted := w.Mountpoint(id); !counted {
		return nil
	}
	isMount := w.isMounted(id)
	return w.editMounts(func(t mountTable) error {
		_, err := w.unmount(t, id, "", isMount, true)
		return err
	})
}

// isMounted tells whether something is mounted where the table says that the
// layer is, which is not so for drivers whose layers are plain directories.
func (t *Tx) isMounted(id string) bool {
	m, _ := t.Mountpoint(id)
	on, err := mounts.IsMountPoint(m.Path)
	return m.Path != "" && (err != nil || on)
}

// Deletable returns the IDs of the layers that DeleteImage would delete with
// the image, top first, without deleting anything. Errors are those of
// DeleteImage.
func (t *Tx) Deletable(imageRef string) ([]string, error) {
	img, err := t.Image(imageRef)
	if err != nil {
		return nil, err
	}
	if err := t.checkImageUnused(img); err != nil {
		return nil, err
	}
	var ids []string
	for _, l := range t.Orphans(img.ID) {
		if err := t.checkUnmounted(l.ID); err != nil {
			return nil, err
		}
		ids = append(ids, l.ID)
	}
	return ids, nil
}

// Wipe deletes every container, image and layer of the store, detaching what
// is mounted; those of additional stores stay. Objects that others make in the
// meantime may stay. A kill leaves what it had not come to. What cannot be
// deleted is reported at the end, all the rest is gone. at counts objects.
func (s *Store) Wipe(ctx context.Context, at Progress) error {
	var errs []error
	var lists [numKinds][]string
	all := 0
	for k := range Kind(numKinds) {
		ids, err := s.ownIDs(ctx, k)
		if err != nil {
			return err
		}
		lists[k] = ids
		all += len(ids)
	}
	done := 0
	for _, k := range []Kind{KindContainer, KindImage} {
		for _, id := range lists[k] {
			at.tell(done, all)
			done++
			err := s.withEntry(ctx, func(entry *stageEntry) error {
				return s.Update(ctx, func(w *WriteTx) error {
					if _, there := w.Names(k, id); !there {
						return nil
					}
					return w.deleteAny(entry, k, id)
				})
			})
			if ctx.Err() != nil {
				return err
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, s.wipeLayers(ctx, func(layers, _ int) { at.tell(done+layers, all) }))...)
}

// ownIDs are the IDs of a kind but for those of additional stores.
func (s *Store) ownIDs(ctx context.Context, k Kind) (ids []string, err error) {
	err = s.View(ctx, func(t *Tx) error {
		for o := range t.st.of(k).each {
			if o.m().shadow == 0 {
				ids = append(ids, o.id())
			}
		}
		return nil
	})
	return ids, err
}

// wipeLayers deletes all layers in one transaction: the steps delete:2 to
// delete:4 of doc_lifecycle.go, each for all of them.
func (s *Store) wipeLayers(ctx context.Context, at Progress) error {
	return s.withEntry(ctx, func(entry *stageEntry) error {
		return s.Update(ctx, func(w *WriteTx) error {
			var ids []string
			for l := range w.Layers() {
				if l.shadow == 0 {
					ids = append(ids, l.ID)
				}
			}
			for _, id := range ids {
				err := w.setIncomplete(KindLayer, id, true)
				if err != nil && !errors.Is(err, errno.ErrDamaged) {
					return err
				}
			}
			if err := w.save(KindLayer); err != nil {
				return fmt.Errorf("delete all layers: %w", err)
			}
			w.s.fail("delete:2")
			return w.dropLayers(entry, ids, at)
		})
	})
}

// dropLayers is delete:3 and delete:4 for layers that are flagged. Where a
// layer is mounted is told by those below it, so mounts go first.
func (w *WriteTx) dropLayers(entry *stageEntry, ids []string, at Progress) error {
	for _, id := range ids {
		w.unmountStray(id)
	}
	var errs []error
	gone := map[string]bool{}
	for i, id := range ids {
		at.tell(i, len(ids))
		if err := w.retire(entry, id); err != nil {
			errs = append(errs, fmt.Errorf("delete layer %s: %w", id, err))
			continue
		}
		w.s.fail("delete:3")
		if err := w.remove(KindLayer, id); err != nil {
			return errors.Join(append(errs, err)...)
		}
		gone[id] = true
	}
	errs = append(errs, w.save(KindLayer), w.editMounts(func(t mountTable) error {
		for id := range gone {
			delete(t, id)
		}
		return nil
	}))
	return errors.Join(errs...)
}
