package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/mounts"
)

// mountTimeout bounds the wait for a mount program, which happens under locks.
const mountTimeout = 30 * time.Second

// mountTarget is what Mount and Unmount work on.
type mountTarget struct {
	layer    *Layer
	label    string
	volatile bool
	image    bool // named by an image, so for reading only
	// maps are those that the layers below are seen through.
	maps idmap.Maps
}

// mountTarget resolves a container, a layer or an image, in this order; a
// path of the mount table names its layer.
func (t *Tx) mountTarget(ref string) (mountTarget, error) {
	if c, err := t.Container(ref); err == nil {
		l := t.LayerByID(c.Layer)
		if l == nil {
			return mountTarget{}, errno.New(errno.ErrDamaged, "container %s: its layer %s is missing", c.ID, c.Layer)
		}
		label, _ := c.Flags["MountLabel"].(string)
		return mountTarget{layer: l, label: label, volatile: c.Volatile, maps: t.shiftedMaps(l)}, nil
	} else if !errors.Is(err, errno.ErrUnknown) {
		return mountTarget{}, err
	}
	if l, err := t.Layer(ref); err == nil {
		target := mountTarget{layer: l, label: l.MountLabel, volatile: l.Volatile, maps: t.shiftedMaps(l)}
		for _, c := range t.ContainersOnLayer(l.ID) {
			target.volatile = target.volatile || c.Volatile
		}
		return target, nil
	} else if !errors.Is(err, errno.ErrUnknown) {
		return mountTarget{}, err
	}
	return t.imageTarget(ref)
}

// imageTarget is mountTarget for an image.
func (t *Tx) imageTarget(ref string) (mountTarget, error) {
	img, err := t.Image(ref)
	if err != nil {
		return mountTarget{}, err
	}
	l := t.LayerByID(img.TopLayer)
	if l == nil {
		return mountTarget{}, errno.New(errno.ErrUnknown, "image %s has no layer to mount", img.ID)
	}
	return mountTarget{layer: l, image: true}, nil
}

// checkWritable refuses a read-write mount of what others build on.
func (t *Tx) checkWritable(m mountTarget) error {
	id := m.layer.ID
	switch {
	case m.image:
		return errno.New(errno.ErrReadOnly, "an image is mounted read-only; make a container of it to write")
	case m.layer.ReadOnly:
		return errno.New(errno.ErrReadOnly, "layer %s belongs to a read-only store and cannot be mounted for writing", id)
	case m.layer.Sealed():
		return errno.New(errno.ErrReadOnly, "layer %s was made read-only and cannot be mounted for writing; make a child layer", id)
	case len(t.Children(id)) > 0:
		return errno.New(errno.ErrReadOnly, "layer %s has children and cannot be mounted for writing; make a child layer of your own", id)
	case len(t.ImagesOn(id)) > 0 || len(t.MappedBy(id)) > 0:
		return errno.New(errno.ErrReadOnly, "layer %s belongs to an image and cannot be mounted for writing; make a container", id)
	}
	return nil
}

// Mount mounts the layer that ref names (a container's, a layer, or, for
// reading, an image's), or counts one more user of the mount that is there,
// and returns its path. ErrReadOnly for a layer that others build on, unless
// o.ReadOnly; ErrInUse when its count is above zero, but the mount is not seen
// here: another mount namespace may be writing to it.
func (s *Store) Mount(ctx context.Context, ref string, o drivers.MountOptions) (path string, err error) {
	if !o.ReadOnly {
		if err := s.writable(); err != nil {
			return "", err
		}
		if err := s.awaitClock(ctx, ref); err != nil {
			return "", err
		}
	}
	return s.mountRef(ctx, o, func(t *Tx) (mountTarget, error) { return t.mountTarget(ref) })
}

// mountRef mounts what resolve finds, which is asked under the locks.
func (s *Store) mountRef(ctx context.Context, o drivers.MountOptions, resolve func(*Tx) (mountTarget, error)) (path string, err error) {
	if err := s.writable(); err != nil {
		return "", err
	}
	err = s.Update(ctx, func(w *WriteTx) error {
		target, err := resolve(w.Tx)
		if err != nil {
			return err
		}
		if !o.ReadOnly {
			if err := w.checkWritable(target); err != nil {
				return err
			}
		}
		if o.Label == "" {
			o.Label = target.label
		}
		o.Volatile = o.Volatile || target.volatile
		if o.Maps.Empty() && drivers.ShiftOf(s.driver) != drivers.NoShift {
			o.Maps = target.maps
		}
		path, err = w.mount(target.layer.ID, o)
		return err
	})
	return path, err
}

// mount mounts and counts under mountpoints.lock. What it mounted it unmounts
// again when the count cannot be saved.
func (w *WriteTx) mount(id string, o drivers.MountOptions) (string, error) {
	o.Volatile = o.Volatile && !w.s.opts.DisableVolatile
	plan, err := w.mountPlan(id, o)
	if err != nil {
		return "", fmt.Errorf("mount layer %s: %w", id, err)
	}
	path, fresh := plan.Target, false
	err = w.editMounts(func(t mountTable) error {
		m := t[id]
		if m.Count > 0 && m.Path != "" {
			path = m.Path
		}
		if mountsAnything(plan) {
			if fresh, err = needsMount(id, m, path, o.ReadOnly); err != nil {
				return err
			}
		}
		if fresh {
			path = plan.Target
			if err := w.carryOut(plan); err != nil {
				return fmt.Errorf("mount layer %s: %w", id, err)
			}
			w.s.fail("mount:1")
		}
		t[id] = Mountpoint{Path: path, Count: m.Count + 1}
		return nil
	})
	if err != nil && fresh {
		if on, merr := mounts.IsMountPoint(path); merr == nil && on {
			err = errors.Join(err, mounts.Unmount(context.WithoutCancel(w.ctx()), path, true))
		}
	}
	if err != nil {
		return "", err
	}
	w.s.fail("mount:2")
	return path, nil
}

// mountPlan asks the driver what to mount. Links of the layers below that are
// missing, and that the driver by itself cannot tell, are made again.
func (w *WriteTx) mountPlan(id string, o drivers.MountOptions) (mounts.Plan, error) {
	plan, err := w.s.driver.Mount(id, o)
	if !errors.Is(err, errno.ErrDamaged) {
		return plan, err
	}
	if mended, merr := w.mendChain(id); merr == nil && len(mended) > 0 {
		return w.s.driver.Mount(id, o)
	}
	return plan, err
}

func (w *WriteTx) carryOut(p mounts.Plan) error {
	ctx, cancel := context.WithTimeout(w.ctx(), mountTimeout)
	defer cancel()
	return mounts.Do(ctx, p)
}

// mountsAnything is false for drivers whose layers are plain directories.
func mountsAnything(p mounts.Plan) bool { return p.Type != "" || p.Program != "" }

// needsMount tells whether the plan must be carried out, or path is mounted.
func needsMount(id string, m Mountpoint, path string, readOnly bool) (bool, error) {
	on, err := mounts.IsMountPoint(path)
	switch {
	case err != nil:
		return false, fmt.Errorf("look at the mount of layer %s: %w", id, err)
	case on && !readOnly && isReadOnlyMount(path):
		return false, errno.New(errno.ErrInUse, "layer %s is mounted read-only at %s; unmount it first", id, path)
	case on:
		return false, nil // also when nobody counts it: its maker was killed
	case m.Count > 0 && !readOnly:
		return false, errno.New(errno.ErrInUse, "layer %s is counted as mounted at %s, but not mounted here: another mount namespace may be using it; if none is, unmount it with force", id, path)
	}
	return true, nil
}

// countedOnly tells whether a layer is counted as mounted, and is not. The table is read
// and the mount looked at under the table's lock, since who mounts or unmounts does both
// under it.
func (s *Store) countedOnly(ctx context.Context, id string) (m Mountpoint, gone bool, err error) {
	held, err := s.mountsLock.RLock(ctx)
	if err != nil {
		return m, false, fmt.Errorf("lock the table of mounts: %w", err)
	}
	defer func() { err = also(err, held.Unlock()) }()
	var now state
	if err := s.readMounts(&now, held); err != nil {
		return m, false, err
	}
	if m = now.mounts.table[id]; m.Count == 0 || m.Path == "" {
		return m, false, nil
	}
	if plain, err := s.plainDirectory(id, m.Path); err != nil || plain {
		return m, false, err
	}
	on, err := mounts.IsMountPoint(m.Path)
	return m, !on, err
}

// plainDirectory tells whether path is the layer's own directory, so that nothing is
// mounted for it.
func (s *Store) plainDirectory(id, path string) (bool, error) {
	dirs, err := s.driver.Dirs(id)
	if err != nil || len(dirs) == 0 {
		return false, err
	}
	own, err := os.Stat(dirs[0])
	if err != nil {
		return false, err
	}
	at, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(own, at), err
}

func isReadOnlyMount(path string) bool {
	return unix.ReadOnlyMount(path)
}

// Unmount counts one user less, and unmounts for the last; it returns how many
// are left. With force the count becomes zero, and a mount that is busy is
// detached. What is not mounted is no error. ErrInUse when the mount is busy,
// or is not seen here though it is counted.
func (s *Store) Unmount(ctx context.Context, ref string, force bool) (remaining int, err error) {
	return s.unmountRef(ctx, force, func(t *Tx) (string, error) { return t.mountedLayer(ref) })
}

// unmountRef unmounts the layer that resolve finds, which is asked under the
// locks.
func (s *Store) unmountRef(ctx context.Context, force bool, resolve func(*Tx) (string, error)) (remaining int, err error) {
	if err := s.writable(); err != nil {
		return 0, err
	}
	var layer *Layer
	err = s.Update(ctx, func(w *WriteTx) error {
		id, err := resolve(w.Tx)
		if err != nil {
			return err
		}
		layer = w.LayerByID(id)
		plan, err := w.s.driver.Mount(id, drivers.MountOptions{ReadOnly: true})
		if err != nil && !force {
			return fmt.Errorf("unmount layer %s: %w", id, err)
		}
		isMount := mountsAnything(plan) || err != nil
		return w.editMounts(func(t mountTable) error {
			remaining, err = w.unmount(t, id, plan.Target, isMount, force)
			return err
		})
	})
	if err == nil && remaining == 0 {
		err = s.forgetOldContent(ctx, layer)
	}
	return remaining, err
}

// mountedLayer resolves ref as Mount does, or as the path of a mount.
func (t *Tx) mountedLayer(ref string) (string, error) {
	target, err := t.mountTarget(ref)
	if err == nil {
		return target.layer.ID, nil
	}
	for l := range t.Layers() {
		if m, ok := t.Mountpoint(l.ID); ok && m.Path == ref && ref != "" {
			return l.ID, nil
		}
	}
	return "", err
}

// unmount lowers the count of layer id in t, unmounting at zero.
func (w *WriteTx) unmount(t mountTable, id, target string, isMount, force bool) (int, error) {
	m := t[id]
	if m.Count > 1 && !force {
		m.Count--
		t[id] = m
		return m.Count, nil
	}
	path := m.Path
	if path == "" {
		path = target
	}
	if isMount && path != "" {
		if err := w.unmountPath(id, path, m.Count, force); err != nil {
			return m.Count, err
		}
		w.s.fail("umount:1")
	}
	delete(t, id)
	return 0, nil
}

func (w *WriteTx) unmountPath(id, path string, count int, force bool) error {
	on, err := mounts.IsMountPoint(path)
	switch {
	case err != nil:
		return fmt.Errorf("look at the mount of layer %s: %w", id, err)
	case on:
		ctx, cancel := context.WithTimeout(w.ctx(), mountTimeout)
		defer cancel()
		return mounts.Unmount(ctx, path, force)
	case count > 0 && !force:
		return errno.New(errno.ErrInUse, "layer %s is counted as mounted at %s, but not mounted here: another mount namespace may be using it; if none is, unmount it with force", id, path)
	}
	return nil
}
