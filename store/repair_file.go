package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/mounts"
)

// stampLayout dates the copies of damaged files.
const stampLayout = "20060102T150405Z"

func damagedStamp() string { return time.Now().UTC().Format(stampLayout) }

// file makes the record files of a kind whole: the damaged one is kept beside,
// and the records that could be read are saved.
func (r *repairer) file(ctx context.Context, f Finding) error {
	return r.s.Update(ctx, func(w *WriteTx) error {
		if w.st.part(f.Kind).broken() == nil {
			return nil
		}
		for file, path := range w.s.paths[f.Kind].own {
			if path == "" {
				continue
			}
			if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
				continue
			}
			whole, err := w.s.wholeFile(f.Kind, file)
			if err != nil {
				return err
			}
			if whole {
				continue
			}
			to, err := setAside(path, damagedStamp())
			if err != nil {
				return err
			}
			w.dirty[f.Kind][file] = true
			r.did(f, "kept %s as %s and wrote the records that could be read", filepath.Base(path), filepath.Base(to))
		}
		w.s.fail("repair:1")
		w.mutableAny(f.Kind).mend()
		return w.save(f.Kind)
	})
}

// wholeFile tells whether one of a kind's own files can be read to its end.
func (s *Store) wholeFile(k Kind, file int) (bool, error) {
	f, _, err := loadText(k, s.paths[k].own[file], origin{})
	if err != nil {
		return false, err
	}
	switch k {
	case KindLayer:
		return brokenIn(k, f, decodeLayer) == nil, nil
	case KindImage:
		return brokenIn(k, f, decodeImage) == nil, nil
	}
	return brokenIn(k, f, decodeContainer) == nil, nil
}

func brokenIn[R record[R]](k Kind, f fileText, decode func(*scanner) (R, error)) error {
	return parseFile(k, f, newSet[R](k, 0), decode).broken
}

// stray drops an element that is not shown from its file, of which a copy is
// kept beside.
func (r *repairer) stray(ctx context.Context, f Finding) error {
	return r.s.Update(ctx, func(w *WriteTx) error {
		if err := w.writable(f.Kind); err != nil {
			return err
		}
		for file, path := range w.s.paths[f.Kind].own {
			if path == "" || !slices.ContainsFunc(w.strays(f.Kind, file), func(o opaque) bool { return o.raw == f.Subject }) {
				continue
			}
			to, err := setAside(path, damagedStamp())
			if err != nil {
				return err
			}
			w.s.fail("repair:1")
			w.dropStray(f.Kind, file, f.Subject)
			r.did(f, "kept %s as %s and left the record out", filepath.Base(path), filepath.Base(to))
			return nil
		}
		return nil
	})
}

// strays are the elements of an own file that are not shown.
func (w *WriteTx) strays(k Kind, file int) []opaque {
	switch k {
	case KindLayer:
		return w.st.layers.records().opaque[file]
	case KindImage:
		return w.st.images.records().opaque[file]
	}
	return w.st.containers.records().opaque[file]
}

func (w *WriteTx) dropStray(k Kind, file int, raw string) {
	kept := slices.DeleteFunc(slices.Clone(w.strays(k, file)), func(o opaque) bool { return o.raw == raw })
	switch k {
	case KindLayer:
		mutableSet(w, layerPart).opaque[file] = kept
	case KindImage:
		mutableSet(w, imagePart).opaque[file] = kept
	case KindContainer:
		mutableSet(w, containerPart).opaque[file] = kept
	}
	w.dirty[k][file] = true
}

// mounts makes the table of mounts anew from what is mounted here, once each;
// the damaged one is kept beside. Mounts of other namespaces are not seen, so
// it is done by force only when there may be some.
func (r *repairer) mounts(ctx context.Context, f Finding) error {
	return r.s.Update(ctx, func(w *WriteTx) error {
		if w.st.mounts.broken == nil {
			return nil
		}
		table := w.mountedHere()
		to, err := setAside(w.s.mountsPath, damagedStamp())
		if err != nil {
			return err
		}
		w.s.fail("repair:1")
		if err := w.replaceMounts(table); err != nil {
			return err
		}
		r.did(f, "kept %s as %s and counted the %d mounts that are seen here", filepath.Base(w.s.mountsPath), filepath.Base(to), len(table))
		return nil
	})
}

// mountedHere looks at every layer's mount point.
func (w *WriteTx) mountedHere() mountTable {
	table := mountTable{}
	for l := range w.Layers() {
		plan, err := w.s.driver.Mount(l.ID, drivers.MountOptions{ReadOnly: true})
		if err != nil || !mountsAnything(plan) {
			continue
		}
		if on, err := mounts.IsMountPoint(plan.Target); err == nil && on {
			table[l.ID] = Mountpoint{Path: plan.Target, Count: 1}
		}
	}
	return table
}

// replaceMounts saves a table in place of one that cannot be read.
func (w *WriteTx) replaceMounts(table mountTable) (err error) {
	s := w.s
	held, err := s.mountsLock.Lock(w.cx, "repair")
	if err != nil {
		return fmt.Errorf("lock the table of mounts: %w", err)
	}
	defer func() { err = also(err, held.Unlock()) }()
	var ms mountsState
	w.saved = true
	if err := s.writeMounts(&ms, table, held); err != nil {
		s.stale.Store(true)
		return err
	}
	w.st.mounts, w.base.mounts = ms, ms
	return nil
}

// remove deletes a damaged object and all that stands on it: containers (by
// force only), then images, then layers from the top down, each in a
// transaction of its own.
func (r *repairer) remove(ctx context.Context, f Finding) error {
	plan, err := r.plan(ctx, f)
	if err != nil {
		return err
	}
	for _, id := range plan.containers {
		if err := r.s.DeleteContainer(ctx, id); err != nil && !errors.Is(err, errno.ErrUnknown) {
			return err
		}
		r.did(f, "deleted container %s", id)
	}
	for _, id := range plan.images {
		if err := r.dropImage(ctx, id); err != nil {
			return err
		}
		r.did(f, "deleted image %s", id)
	}
	for _, id := range plan.layers {
		if err := r.dropLayer(ctx, id, plan.layers); err != nil {
			return err
		}
		r.did(f, "deleted layer %s", id)
	}
	return nil
}

// removal is what goes with a damaged object, in the order of deletion.
type removal struct{ containers, images, layers []string }

// plan finds what must go. Nothing when the object is gone already, or is
// another one by now.
func (r *repairer) plan(ctx context.Context, f Finding) (p removal, err error) {
	err = r.s.View(ctx, func(t *Tx) error {
		if t.st.of(f.Kind).anyOf(f.ID) == nil {
			return nil
		}
		switch f.Kind {
		case KindLayer:
			t.planLayer(f.ID, &p)
		case KindImage:
			t.planImage(f.ID, &p)
		case KindContainer:
			p.containers = []string{f.ID}
		}
		if len(p.containers) > 0 && !r.o.Force {
			return errContainers(t, f, p.containers[0])
		}
		return t.checkRemovable(p)
	})
	return p, err
}

func errContainers(t *Tx, f Finding, container string) error {
	if f.Kind == KindContainer {
		return errno.New(errno.ErrInUse, "container %s is only deleted by force", container)
	}
	layer := f.ID
	if c := t.ContainerByID(container); f.Kind == KindImage && c != nil {
		layer = c.Layer
	}
	return errno.New(errno.ErrInUse, "layer %s used by container %s: %s; use force to delete the container too", layer, container, ProblemInUse)
}

// planLayer adds a layer, what was made over it, and the images and containers
// of all these.
func (t *Tx) planLayer(id string, p *removal) {
	if slices.Contains(p.layers, id) {
		return
	}
	p.layers = append(p.layers, id) // so that a loop of parents ends
	for _, c := range t.Children(id) {
		t.planLayer(c.ID, p)
	}
	p.layers = append(without(p.layers, id), id)
	for _, c := range t.ContainersOnLayer(id) {
		p.addContainer(t, c)
	}
	for _, i := range append(slices.Clone(t.ImagesOn(id)), t.MappedBy(id)...) {
		t.planImage(i.ID, p)
	}
}

func (t *Tx) planImage(id string, p *removal) {
	if slices.Contains(p.images, id) {
		return
	}
	p.images = append(p.images, id)
	for _, c := range t.ContainersOf(id) {
		p.addContainer(t, c)
	}
}

// addContainer adds a container, whose layer goes with it.
func (p *removal) addContainer(t *Tx, c *Container) {
	if !slices.Contains(p.containers, c.ID) {
		p.containers = append(p.containers, c.ID)
	}
}

// checkRemovable refuses a plan that would stop half way.
func (t *Tx) checkRemovable(p removal) error {
	for _, id := range p.layers {
		if err := t.checkUnmounted(id); err != nil {
			return err
		}
	}
	for _, id := range p.containers {
		if c := t.ContainerByID(id); c != nil && c.Layer != "" {
			if err := t.checkUnmounted(c.Layer); err != nil {
				return err
			}
		}
	}
	for _, id := range p.images {
		if i := t.ImageByID(id); i != nil && i.ReadOnly {
			return errno.New(errno.ErrReadOnly, "image %s of an additional store stands on it", id)
		}
	}
	return nil
}

// dropImage deletes an image and leaves its layers, which are sound.
func (r *repairer) dropImage(ctx context.Context, id string) error {
	return r.s.withEntry(ctx, func(entry *stageEntry) error {
		r.s.fail("drop:1")
		return r.s.Update(ctx, func(w *WriteTx) error {
			img := w.ImageByID(id)
			if img == nil {
				return nil
			}
			if err := w.checkImageUnused(img); err != nil {
				return err
			}
			return w.dropObject(entry, KindImage, id, nil)
		})
	})
}

// dropLayer deletes a layer over which there are at most others that go too
// (in a loop of parents, there are).
func (r *repairer) dropLayer(ctx context.Context, id string, going []string) error {
	return r.s.withEntry(ctx, func(entry *stageEntry) error {
		r.s.fail("delete:1")
		return r.s.Update(ctx, func(w *WriteTx) error {
			l := w.LayerByID(id)
			if l == nil {
				return nil
			}
			err := w.checkUnused(l)
			if errors.Is(err, errno.ErrHasChildren) && w.usedOnlyBy(id, going) {
				err = w.checkUnmounted(id)
			}
			if err != nil {
				return err
			}
			return w.dropLayer(entry, id)
		})
	})
}

// usedOnlyBy tells whether nothing but these layers needs a layer.
func (t *Tx) usedOnlyBy(id string, layers []string) bool {
	for _, c := range t.Children(id) {
		if !slices.Contains(layers, c.ID) {
			return false
		}
	}
	return len(t.ImagesOn(id))+len(t.MappedBy(id))+len(t.ContainersOnLayer(id)) == 0
}
