package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/mounts"
)

// DeleteLayer deletes the layer that ref (ID, name, unique prefix) names.
// ErrHasChildren and ErrInUse (an image, a container, a mount) say who needs
// it; ErrReadOnly for a layer of an additional store.
func (s *Store) DeleteLayer(ctx context.Context, ref string) error {
	return s.withEntry(ctx, func(entry *stageEntry) error {
		s.fail("delete:1")
		return s.Update(ctx, func(w *WriteTx) error {
			l, err := w.Layer(ref)
			if err != nil {
				return err
			}
			if err := w.checkUnused(l); err != nil {
				return err
			}
			return w.dropLayer(entry, l.ID)
		})
	})
}

// withEntry runs fn with a fresh entry, which is removed afterwards.
func (s *Store) withEntry(ctx context.Context, fn func(*stageEntry) error) error {
	if err := s.writable(); err != nil {
		return err
	}
	entry, err := s.newEntry()
	if err != nil {
		return err
	}
	defer s.discard(ctx, entry)
	return fn(entry)
}

// checkUnused refuses what makes a layer undeletable.
func (t *Tx) checkUnused(l *Layer) error {
	if l.ReadOnly {
		return errno.New(errno.ErrReadOnly, "layer %s belongs to a read-only store", l.ID)
	}
	if err := t.allRead(KindLayer, l.ID, KindLayer, KindImage, KindContainer); err != nil {
		return err
	}
	if c := t.Children(l.ID); len(c) > 0 {
		return errno.New(errno.ErrHasChildren, "layer %s has children (%s, %d in all); delete them first", l.ID, c[0].ID, len(c))
	}
	if i := append(slices.Clone(t.ImagesOn(l.ID)), t.MappedBy(l.ID)...); len(i) > 0 {
		return errno.New(errno.ErrInUse, "layer %s is used by image %s; delete the image first", l.ID, i[0].ID)
	}
	if c := t.ContainersOnLayer(l.ID); len(c) > 0 {
		return errno.New(errno.ErrInUse, "layer %s is used by container %s; delete the container first", l.ID, c[0].ID)
	}
	return t.checkUnmounted(l.ID)
}

// allRead refuses to call an object unused while there may be users in the
// part of a file that cannot be read.
func (t *Tx) allRead(k Kind, id string, users ...Kind) error {
	for _, user := range users {
		if t.st.part(user).broken() != nil {
			return errno.New(errno.ErrDamaged, "whether a %s needs %s %s is not known, since not all %ss can be read; repair their file first", user, k, id, user)
		}
	}
	return nil
}

func (t *Tx) checkUnmounted(id string) error {
	if m, ok := t.Mountpoint(id); ok && m.Count > 0 {
		return errno.New(errno.ErrInUse, "layer %s is mounted at %s (count %d); unmount it first", id, m.Path, m.Count)
	}
	return nil
}

// dropLayer is delete:2 to delete:4; the rules have been checked.
func (w *WriteTx) dropLayer(entry *stageEntry, id string) error {
	if err := w.writable(KindLayer); err != nil {
		return err
	}
	// A damaged record takes no flag, but can be removed.
	if err := w.setIncomplete(KindLayer, id, true); err != nil && !errors.Is(err, errno.ErrDamaged) {
		return err
	}
	if err := w.save(KindLayer); err != nil {
		return fmt.Errorf("delete layer %s: %w", id, err)
	}
	w.s.fail("delete:2")
	if err := w.finishDrop(entry, id); err != nil {
		return fmt.Errorf("delete layer %s: %w", id, err)
	}
	return nil
}

// finishDrop is delete:3 and delete:4, also of a leftover that is flagged.
func (w *WriteTx) finishDrop(entry *stageEntry, id string) error {
	w.unmountStray(id)
	if err := w.retire(entry, id); err != nil {
		return err
	}
	w.s.fail("delete:3")
	if err := w.remove(KindLayer, id); err != nil {
		return err
	}
	if err := w.save(KindLayer); err != nil {
		return err
	}
	w.s.fail("delete:4")
	return w.forgetMounts([]string{id})
}

// forgetMounts drops what the table of mounts says of layers that are gone.
func (w *WriteTx) forgetMounts(ids []string) error {
	counted := func(id string) bool { _, ok := w.Mountpoint(id); return ok }
	if !slices.ContainsFunc(ids, counted) {
		return nil
	}
	return w.editMounts(func(t mountTable) error {
		for _, id := range ids {
			delete(t, id)
		}
		return nil
	})
}

// unmountStray unmounts what is mounted on a layer though nobody counts it
// (the run root was removed): its directories could not be removed. Whether
// it succeeds shows then.
func (w *WriteTx) unmountStray(id string) {
	plan, err := w.s.driver.Mount(id, drivers.MountOptions{})
	if err != nil || !mountsAnything(plan) {
		return
	}
	if on, err := mounts.IsMountPoint(plan.Target); err == nil && on {
		if err := mounts.Unmount(w.ctx(), plan.Target, true); err != nil {
			w.s.log.WithError(err).Warnf("unmount %s, which nobody counts", plan.Target)
		}
	}
}

// Orphans returns the layers that deleting the image deletes with it, top
// first: those of its chains that no other image, container or layer needs;
// never those of a read-only store.
func (t *Tx) Orphans(imageID string) []*Layer {
	img := t.ImageByID(imageID)
	if img == nil || img.ReadOnly {
		return nil
	}
	var out []*Layer
	gone := map[string]bool{}
	for _, top := range append([]string{img.TopLayer}, img.MappedLayers...) {
		for id := top; id != "" && !gone[id]; {
			l := t.LayerByID(id)
			if l == nil || !t.onlyFor(l, imageID, gone) {
				break
			}
			gone[id] = true
			out = append(out, l)
			id = l.Parent
		}
	}
	return out
}

// onlyFor tells whether nothing but the image, and layers already gone, needs l.
func (t *Tx) onlyFor(l *Layer, imageID string, gone map[string]bool) bool {
	if l.ReadOnly || len(t.ContainersOnLayer(l.ID)) > 0 || t.allRead(KindLayer, l.ID, KindLayer, KindContainer) != nil {
		return false
	}
	for _, c := range t.Children(l.ID) {
		if !gone[c.ID] {
			return false
		}
	}
	for _, i := range append(slices.Clone(t.ImagesOn(l.ID)), t.MappedBy(l.ID)...) {
		if i.ID != imageID {
			return false
		}
	}
	return true
}

// DeleteImage deletes an image and the layers that nothing else uses, whose
// IDs it returns, top first. ErrInUse when containers were made of it, or one
// of those layers is mounted; ErrReadOnly in a read-only store.
func (s *Store) DeleteImage(ctx context.Context, ref string) (deleted []string, err error) {
	err = s.withEntry(ctx, func(entry *stageEntry) error {
		s.fail("drop:1")
		return s.Update(ctx, func(w *WriteTx) error {
			if deleted, err = w.Deletable(ref); err != nil {
				return err
			}
			id, err := w.Resolve(KindImage, ref)
			if err != nil {
				return err
			}
			return w.dropObject(entry, KindImage, id, deleted)
		})
	})
	if err != nil {
		return nil, err
	}
	return deleted, nil
}

func (t *Tx) checkImageUnused(img *Image) error {
	if img.ReadOnly {
		return errno.New(errno.ErrReadOnly, "image %s belongs to a read-only store", img.ID)
	}
	if err := t.allRead(KindImage, img.ID, KindContainer); err != nil {
		return err
	}
	if c := t.ContainersOf(img.ID); len(c) > 0 {
		return errno.New(errno.ErrInUse, "image %s is used by container %s (%d in all); delete the containers first", img.ID, c[0].ID, len(c))
	}
	return nil
}

// DeleteContainer deletes a container with its layer and directories. ErrInUse
// while the layer is mounted.
func (s *Store) DeleteContainer(ctx context.Context, ref string) error {
	return s.withEntry(ctx, func(entry *stageEntry) error {
		s.fail("drop:1")
		return s.Update(ctx, func(w *WriteTx) error {
			c, err := w.Container(ref)
			if err != nil {
				return err
			}
			if err := w.checkUnmounted(c.Layer); err != nil {
				return err
			}
			var layers []string
			if l := w.LayerByID(c.Layer); l != nil && w.onlyOf(l, c.ID) {
				layers = append(layers, l.ID)
			}
			return w.dropObject(entry, KindContainer, c.ID, layers)
		})
	})
}

// onlyOf tells whether nothing but the container needs l.
func (t *Tx) onlyOf(l *Layer, containerID string) bool {
	for _, c := range t.ContainersOnLayer(l.ID) {
		if c.ID != containerID {
			return false
		}
	}
	return !l.ReadOnly && len(t.Children(l.ID)) == 0 && len(t.ImagesOn(l.ID)) == 0 && len(t.MappedBy(l.ID)) == 0
}

// dropObject is drop:2 to drop:6.
func (w *WriteTx) dropObject(entry *stageEntry, k Kind, id string, layers []string) error {
	if err := entry.writeJournal(journal{Op: journalDelete, Kind: journalKind(k), ID: id, Layers: layers}); err != nil {
		return err
	}
	w.s.fail("drop:2")
	if err := w.remove(k, id); err != nil {
		return err
	}
	if err := w.save(k); err != nil {
		return fmt.Errorf("delete %s %s: %w", k, id, err)
	}
	w.s.fail("drop:3")
	return w.finishObjectDrop(entry, k, id, layers)
}

// finishObjectDrop removes what belonged to an object whose record is gone,
// also when a killed process began it. Layers that got a use meanwhile are
// passed over; of those without a record the directories may still be there.
func (w *WriteTx) finishObjectDrop(entry *stageEntry, k Kind, id string, layers []string) error {
	errs := []error{entry.trash(w.s.objectDir(k, id)), w.trashRunDir(k, id)}
	w.s.fail("drop:4")
	gone, err := w.dropRecords(layers)
	errs = append(errs, err)
	w.s.fail("drop:5")
	for _, layer := range gone {
		errs = append(errs, w.retireLeft(entry, layer))
	}
	w.s.fail("drop:6")
	if err := errors.Join(errs...); err != nil {
		entry.keep = true
		return fmt.Errorf("delete %s %s: %w", k, id, err)
	}
	return nil
}

// dropRecords drops the records of the layers that nothing uses, top first,
// with one save, and returns those layers that then have none.
func (w *WriteTx) dropRecords(layers []string) (gone []string, err error) {
	if len(layers) > 0 && w.s.driver == nil {
		return nil, w.s.writable()
	}
	for _, id := range layers {
		l := w.LayerByID(id)
		if l != nil && w.checkUnused(l) != nil {
			continue
		}
		if l != nil {
			w.unmountStray(id)
			if err := w.remove(KindLayer, id); err != nil {
				return nil, err
			}
		}
		gone = append(gone, id)
	}
	if err := w.save(KindLayer); err != nil {
		return nil, err
	}
	return gone, w.forgetMounts(gone)
}

// trashRunDir removes the object's directory in the run root, another
// filesystem: small, so it is removed in place.
func (w *WriteTx) trashRunDir(k Kind, id string) error {
	return removeTree(context.WithoutCancel(w.ctx()), w.s.runObjectDir(k, id))
}
