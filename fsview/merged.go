package fsview

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/holders"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/mounts"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

// mountVerbs are what ctl of what can be mounted understands.
func mountVerbs() []verbSpec {
	return []verbSpec{
		{name: "mount", rest: "[OPTION,...]", doc: "mount for writing; the tree is merged/; options: " + strings.Join(mountWords(), ", "), check: checkMount, run: runMount},
		{name: "umount", words: []string{"force"}, doc: "let go of the mount; with force whoever else counts on it", run: func(ctx context.Context, p place, arg string) error {
			return p.fs.let(ctx, p, arg == "force")
		}},
	}
}

// mountWords are the options that the verb mount takes.
func mountWords() []string {
	return []string{"ro", "volatile", "nodev", "nosuid", "noexec", "noatime"}
}

func runMount(ctx context.Context, p place, arg string) error {
	o, err := parseMount(arg)
	if err != nil {
		return err
	}
	_, err = p.fs.take(ctx, p, o)
	return err
}

func checkMount(arg string) error {
	_, err := parseMount(arg)
	return err
}

// parseMount reads the options of the verb mount.
func parseMount(arg string) (o drivers.MountOptions, err error) {
	for _, word := range strings.FieldsFunc(arg, func(r rune) bool { return r == ',' || r == ' ' }) {
		switch {
		case !contains(mountWords(), word):
			return o, errno.New(errno.ErrBadValue, "%q is no option of a mount here: use %s", clip(word), strings.Join(mountWords(), ", "))
		case word == "ro":
			o.ReadOnly = true
		case word == "volatile":
			o.Volatile = true
		default:
			o.Options = append(o.Options, word)
		}
	}
	return o, nil
}

// plain tells whether nothing was asked for.
func plain(o drivers.MountOptions) bool { return !o.ReadOnly && !o.Volatile && len(o.Options) == 0 }

// merged returns the root of the mounted tree, which is mounted if it is not.
func (p place) merged(ctx context.Context) (vnode.Node, error) {
	if p.fs.opts.Trees == nil {
		return nil, errno.New(errno.ErrNotSupported, "%s cannot be shown: this program serves no trees", p.label())
	}
	path, err := p.fs.take(ctx, p, drivers.MountOptions{})
	if err != nil {
		return nil, err
	}
	var owners idmap.Maps
	if id, ok := p.layerID(); ok {
		owners = p.tx.MountMaps(p.tx.LayerByID(id))
	}
	n, err := p.fs.opts.Trees.Window(p.key(), path, p.owners(owners))
	if err != nil {
		return nil, fmt.Errorf("opening the mount at %s: %w", path, err)
	}
	// Looked at afterwards: a window that was opened before the mount went is
	// one on nothing (ESTALE), but one on what lay under it would take files.
	if err := p.fs.stillMounted(p); err != nil {
		if f, ok := n.(vnode.Forgetter); ok {
			f.Forget()
		}
		return nil, err
	}
	return n, nil
}

// heldMount is a mount that was taken.
type heldMount struct {
	path string
	// mount: it is one, that of identity; with drivers that keep whole copies it
	// is a directory.
	mount    bool
	identity mounts.Identity
	// gen is a generation in which it is counted.
	gen uint64
}

// replaced tells whether another mount is there now: somebody ended this one by
// force, and the one that was made since is not ours to give back.
func (h heldMount) replaced() bool {
	if !h.mount {
		return false
	}
	identity, on, err := mounts.IdentityOf(h.path)
	return err == nil && on && identity != h.identity
}

// dropHolds forgets the mounts that nobody counts any more. A subscriber of the
// store calls it for each state, so that a mount which another program makes
// later is not taken for the one that was held.
func (f *FS) dropHolds(uint64) {
	if !f.holdsAny() {
		return
	}
	tx, err := f.view(context.Background())
	if err != nil {
		return // the next state tells
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, h := range f.held {
		if m, ok := tx.Mountpoint(id); tx.Generation() >= h.gen && (!ok || m.Count == 0) {
			delete(f.held, id)
		}
	}
}

// subscribe has dropHolds called from now on, until Close.
func (f *FS) subscribe() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unsubscribe == nil && !f.closed {
		f.unsubscribe = f.store.Subscribe(f.dropHolds)
	}
}

// stillMounted refuses a mount that is counted and was taken, but is gone:
// somebody unmounted it without the count.
func (f *FS) stillMounted(p place) error {
	id, _ := p.layerID()
	f.mu.Lock()
	h := f.held[id]
	f.mu.Unlock()
	if !h.mount {
		return nil
	}
	switch on, err := mounts.IsMountPoint(h.path); {
	case err != nil:
		return fmt.Errorf("looking at the mount of %s: %w", p.label(), err)
	case !on:
		return errno.New(errno.ErrInUse, "%s is counted as mounted at %s, but somebody unmounted that without the count: `echo 'umount force' > ctl` sets the count to zero, then it can be mounted again", p.object(), h.path)
	}
	return nil
}

// holds tells whether this tree holds the mount of the place's layer.
func (f *FS) holds(tx *store.Tx, w where) bool {
	p := place{where: w, fs: f, tx: tx}
	id, ok := p.layerID()
	if !ok {
		return false
	}
	f.mu.Lock()
	h, held := f.held[id]
	f.mu.Unlock()
	m, counted := tx.Mountpoint(id)
	return held && counted && m.Count > 0 && !h.replaced()
}

// countHeld is how many mounts are held that anyone counts.
func (f *FS) countHeld(tx *store.Tx) (n int) {
	f.mu.Lock()
	held := maps.Clone(f.held)
	f.mu.Unlock()
	for id, h := range held {
		if m, ok := tx.Mountpoint(id); ok && m.Count > 0 && !h.replaced() {
			n++
		}
	}
	return n
}

// holdsAny tells whether any mount is held, or about to be.
func (f *FS) holdsAny() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.held)+len(f.taking) > 0
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
// this tree, and returns the mount's path. One that is held is good for whoever
// asks for nothing special.
func (f *FS) take(ctx context.Context, p place, o drivers.MountOptions) (string, error) {
	id, ok := p.layerID()
	if !ok {
		return "", p.missing()
	}
	if err := f.writable(); err != nil {
		return "", err
	}
	done, err := f.claim(ctx, id)
	if err != nil {
		return "", err
	}
	defer done()
	switch path, ok := f.stillHeld(ctx, id); {
	case ok && plain(o):
		return path, nil
	case ok:
		return "", errno.New(errno.ErrInUse, "%s is mounted already: `echo umount > ctl` before it is mounted with other options", p.object())
	}
	if err := p.checkMountable(id, o.ReadOnly); err != nil {
		return "", err
	}
	ref := id
	if p.row.obj == objContainer {
		ref = p.id
	}
	f.subscribe()
	path, err := f.store.Mount(ctx, ref, o)
	if err != nil {
		return "", err
	}
	if err := f.hold(id, path); err != nil {
		_, uerr := f.store.Unmount(context.WithoutCancel(ctx), id, false)
		return "", errors.Join(fmt.Errorf("keeping the mount of %s: %w", p.label(), err), uerr)
	}
	return path, nil
}

// hold notes a mount that was just taken and counted.
func (f *FS) hold(id, path string) error {
	identity, on, err := mounts.IdentityOf(path)
	if err != nil {
		return err
	}
	h := heldMount{path: path, mount: on, identity: identity}
	if tx, err := f.view(context.Background()); err == nil {
		h.gen = tx.Generation()
	}
	f.mu.Lock()
	closed := f.closed
	if !closed {
		f.held[id] = h
	}
	f.mu.Unlock()
	if closed {
		return f.writable()
	}
	return nil
}

// stillHeld tells whether the mount that was taken is still counted by
// anyone, and is no other: somebody may have unmounted it by force.
func (f *FS) stillHeld(ctx context.Context, id string) (string, bool) {
	f.mu.Lock()
	h, ok := f.held[id]
	f.mu.Unlock()
	if !ok {
		return "", false
	}
	tx, err := f.view(ctx)
	if err != nil {
		return h.path, true
	}
	if m, ok := tx.Mountpoint(id); ok && m.Count > 0 && !h.replaced() {
		return h.path, true
	}
	f.mu.Lock()
	delete(f.held, id)
	f.mu.Unlock()
	return "", false
}

// checkMountable refuses what others build on, in the words of the tree; the
// store looks again, under its lock.
func (p place) checkMountable(id string, readOnly bool) error {
	l := p.tx.LayerByID(id)
	switch {
	case l == nil:
		return errno.New(errno.ErrDamaged, "the layer %s of %s is missing: nothing can be mounted", short(id), p.object())
	case readOnly:
		return nil
	case l.ReadOnly:
		return errno.New(errno.ErrReadOnly, "%s has no merged/: the layer is in a read-only store; make a child layer", p.object())
	case len(p.tx.Children(id)) > 0 || len(p.tx.ImagesOn(id)) > 0 || len(p.tx.MappedBy(id)) > 0:
		return errno.New(errno.ErrReadOnly, "%s has no merged/: other layers or images are built on it; read tree/, or make a container of the image and write there", p.object())
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
	return f.unmount(ctx, id, force, path.Join(path.Dir(f.pathNow(p.where)), "merged"))
}

// unmount gives back the mount of layer id, which this tree shows at shown.
func (f *FS) unmount(ctx context.Context, id string, force bool, shown string) error {
	// With its layer the mount went as well.
	if _, err := f.store.Unmount(ctx, id, force); err != nil && !errors.Is(err, errno.ErrUnknown) {
		return f.heldBy(ctx, id, shown, err)
	}
	f.mu.Lock()
	delete(f.held, id)
	f.mu.Unlock()
	return nil
}

// heldBy adds to an error of an unmount who uses the mount, as far as this
// process can see. Files that are open through the tree are open in this
// process: then it is told who has them open there, at shown.
func (f *FS) heldBy(ctx context.Context, id, shown string, err error) error {
	if !errors.Is(err, errno.ErrInUse) && errno.Of(err) != errno.ErrInUse.Errno() {
		return err
	}
	tx, verr := f.view(ctx)
	if verr != nil {
		return err
	}
	m, ok := tx.Mountpoint(id)
	if !ok {
		return err
	}
	who, herr := holders.Of(m.Path)
	if i := slices.IndexFunc(who, func(h holders.Holder) bool { return h.PID == os.Getpid() }); i >= 0 {
		through := errno.New(errno.ErrInUse, "the mount is in use: a program has %s open through this tree; end it, or `umount force`", path.Base(who[i].Path))
		who = slices.Delete(who, i, i+1)
		if f.opts.MountPoint != "" && shown != "" {
			users, uerr := holders.Of(path.Join(f.opts.MountPoint, shown))
			who, herr = append(who, users...), errors.Join(herr, uerr)
		}
		if len(who) == 0 {
			return through
		}
	}
	switch {
	case herr != nil || len(who) == 0:
		return err
	case len(who) == 1:
		return errno.New(errno.ErrInUse, "the mount is in use: %s; end it, or `umount force`", who[0])
	}
	return errno.New(errno.ErrInUse, "the mount is in use: %s, and %d more; end them, or `umount force`", who[0], len(who)-1)
}

// releaseAll gives every mount back that is still the one that was taken. One that a process still uses is left, with its count,
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
		if _, ours := f.stillHeld(ctx, id); !ours {
			continue
		}
		if err := f.unmount(ctx, id, false, ""); err != nil {
			errs = append(errs, fmt.Errorf("giving back the mount of layer %s: %w", short(id), err))
		}
	}
	return errors.Join(errs...)
}
