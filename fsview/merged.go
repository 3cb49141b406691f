package fsview

import (
	"context"
	"errors"
	"fmt"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

// mountVerbs are what ctl of a layer or container understands.
func mountVerbs() []verbSpec {
	return []verbSpec{
		{"mount", nil, "mount for writing; the tree is merged/"},
		{"umount", []string{"force"}, "let go of the mount; with force whoever else counts on it"},
	}
}

func runMountVerbs(ctx context.Context, p place, v []byte) error {
	verbs, err := parseVerbs(v, mountVerbs())
	if err != nil {
		return err
	}
	for _, verb := range verbs {
		if verb.name == "mount" {
			_, err = p.fs.take(ctx, p)
		} else {
			err = p.fs.let(ctx, p, contains(verb.args, "force"))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// merged returns the root of the mounted tree, which is mounted if it is not.
func (p place) merged(ctx context.Context) (vnode.Node, error) {
	if p.fs.opts.Trees == nil {
		return nil, errno.New(errno.ErrNotSupported, "%s cannot be shown: this program serves no trees", p.label())
	}
	path, err := p.fs.take(ctx, p)
	if err != nil {
		return nil, err
	}
	n, err := p.fs.opts.Trees.Window(p.key(), path)
	if err != nil {
		return nil, fmt.Errorf("opening the mount at %s: %w", path, err)
	}
	return n, nil
}

// holds tells whether this tree holds the mount of the place's layer.
func (f *FS) holds(tx *store.Tx, w where) bool {
	p := place{where: w, fs: f, tx: tx}
	id, ok := p.layerID()
	if !ok {
		return false
	}
	f.mu.Lock()
	_, held := f.held[id]
	f.mu.Unlock()
	m, counted := tx.Mountpoint(id)
	return held && counted && m.Count > 0
}

// claim makes the caller the only one that mounts or unmounts a layer here,
// until it calls the function returned.
func (f *FS) claim(ctx context.Context, id string) (func(), error) {
	for {
		f.mu.Lock()
		busy, ok := f.taking[id]
		if !ok {
			mine := make(chan struct{})
			f.taking[id] = mine
			f.mu.Unlock()
			return func() {
				f.mu.Lock()
				delete(f.taking, id)
				f.mu.Unlock()
				close(mine)
			}, nil
		}
		f.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for another mount of layer %s: %w", short(id), ctx.Err())
		}
	}
}

// take mounts the place's layer and enters it in the shared count, once for
// this tree, and returns the mount's path.
func (f *FS) take(ctx context.Context, p place) (string, error) {
	id, ok := p.layerID()
	if !ok {
		return "", p.missing()
	}
	if err := f.writable(); err != nil {
		return "", err
	}
	if err := p.checkMountable(id); err != nil {
		return "", err
	}
	done, err := f.claim(ctx, id)
	if err != nil {
		return "", err
	}
	defer done()
	if path, ok := f.stillHeld(ctx, id); ok {
		return path, nil
	}
	ref := id
	if p.row.obj == objContainer {
		ref = p.id
	}
	path, err := f.store.Mount(ctx, ref, drivers.MountOptions{})
	if err != nil {
		return "", err
	}
	f.mu.Lock()
	closed := f.closed
	if !closed {
		f.held[id] = path
	}
	f.mu.Unlock()
	if closed {
		_, err := f.store.Unmount(context.WithoutCancel(ctx), id, false)
		return "", errors.Join(f.writable(), err)
	}
	return path, nil
}

// stillHeld tells whether the mount that was taken is still counted by
// anyone: somebody may have unmounted it by force.
func (f *FS) stillHeld(ctx context.Context, id string) (string, bool) {
	f.mu.Lock()
	path, ok := f.held[id]
	f.mu.Unlock()
	if !ok {
		return "", false
	}
	tx, err := f.view(ctx)
	if err != nil {
		return path, true
	}
	if m, ok := tx.Mountpoint(id); ok && m.Count > 0 {
		return path, true
	}
	f.mu.Lock()
	delete(f.held, id)
	f.mu.Unlock()
	return "", false
}

// checkMountable refuses what others build on, in the words of the tree; the
// store looks again, under its lock.
func (p place) checkMountable(id string) error {
	l := p.tx.LayerByID(id)
	switch {
	case l == nil:
		return errno.New(errno.ErrDamaged, "the layer %s of %s is missing: nothing can be mounted", short(id), p.label())
	case l.ReadOnly:
		return errno.New(errno.ErrReadOnly, "%s has no merged/: the layer is in a read-only store; make a child layer", p.label())
	case len(p.tx.Children(id)) > 0 || len(p.tx.ImagesOn(id)) > 0 || len(p.tx.MappedBy(id)) > 0:
		return errno.New(errno.ErrReadOnly, "%s has no merged/: other layers or images are built on it; read tree/, or make a container of the image and write there", p.label())
	}
	return nil
}

// let gives the mount back: the one that this tree took, or, if it took none,
// one of the shared count, as the peers' umount does. With force the count
// becomes zero.
func (f *FS) let(ctx context.Context, p place, force bool) error {
	id, ok := p.layerID()
	if !ok {
		return p.missing()
	}
	done, err := f.claim(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	if m, ok := p.tx.Mountpoint(id); (!ok || m.Count == 0) && !force {
		f.mu.Lock()
		delete(f.held, id)
		f.mu.Unlock()
		return nil
	}
	return f.unmount(ctx, id, force)
}

func (f *FS) unmount(ctx context.Context, id string, force bool) error {
	if _, err := f.store.Unmount(ctx, id, force); err != nil {
		return err
	}
	f.mu.Lock()
	delete(f.held, id)
	f.mu.Unlock()
	return nil
}

// releaseAll gives every mount back. One that a process still uses is left, with its count,
// and named in the error.
func (f *FS) releaseAll(ctx context.Context) error {
	f.mu.Lock()
	ids := make([]string, 0, len(f.held))
	for id := range f.held {
		ids = append(ids, id)
	}
	f.mu.Unlock()
	sortStrings(ids)
	var errs []error
	for _, id := range ids {
		if err := f.unmount(ctx, id, false); err != nil {
			errs = append(errs, fmt.Errorf("giving back the mount of layer %s: %w", short(id), err))
		}
	}
	return errors.Join(errs...)
}
