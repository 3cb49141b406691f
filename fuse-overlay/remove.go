package fuseoverlay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// unlink removes name, which is not a directory, from dir.
func (o *Overlay) unlink(ctx context.Context, dir *node, name string) error {
	n, err := o.toRemove(ctx, dir, name)
	if err != nil {
		return err
	}
	defer o.forget(n, 1)
	if n.isDir() {
		return syscall.EISDIR
	}
	if err := o.linkedUp(ctx, n); err != nil {
		return err
	}
	n.set(flagUnlinked)
	o.renameMu.RLock()
	defer o.renameMu.RUnlock()
	dir.dir.mu.Lock()
	defer dir.dir.mu.Unlock()
	if !o.boundTo(n, dir, name) {
		return syscall.ENOENT
	}
	return o.inUpperLocked(dir, func(d *safefs.Dir) error {
		return o.unlinkLocked(ctx, n, dir, name, d)
	})
}

// toRemove makes dir upper and returns what name is, with one more look-up.
func (o *Overlay) toRemove(ctx context.Context, dir *node, name string) (*node, error) {
	if !dir.isDir() {
		return nil, syscall.ENOTDIR
	}
	if err := o.mayWrite(); err != nil {
		return nil, err
	}
	n, absent := o.known(dir, name)
	if absent {
		return nil, syscall.ENOENT
	}
	if n == nil {
		var err error
		if n, _, err = o.lookup(ctx, dir, name); err != nil {
			return nil, err
		}
		if n == nil {
			return nil, syscall.ENOENT
		}
	}
	if err := o.copyUp(ctx, dir, allData); err != nil {
		o.forget(n, 1)
		return nil, err
	}
	return n, nil
}

// linkedUp copies a file of several lower names up: its count of links is kept
// with the copy.
func (o *Overlay) linkedUp(ctx context.Context, n *node) error {
	if n.is(flagUp) || n.isDir() || o.work.index == nil || !o.canMark(n.typ) {
		return nil
	}
	o.treeMu.Lock()
	linked := len(n.keys()) > 0
	o.treeMu.Unlock()
	if !linked {
		return nil
	}
	return o.copyUp(ctx, n, allData)
}

func (o *Overlay) boundTo(n, dir *node, name string) bool {
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	e := dir.dir.idx.get(name)
	return e != nil && e.node == n
}

// unlinkLocked removes name from d, dir's upper directory, with renameMu and
// dir held.
func (o *Overlay) unlinkLocked(ctx context.Context, n, dir *node, name string, d *safefs.Dir) error {
	below, err := o.coversBelow(ctx, n, dir, name)
	if err != nil {
		return err
	}
	above := n.is(flagUp)
	if above && n.indexName() != "" {
		if above, err = o.work.inDir(d, name); err != nil {
			return err
		}
	}
	last := o.lastName(n, dir, name)
	if last && n.is(flagUp) {
		if err := o.keepOrphan(n, d, name); err != nil {
			return err
		}
	}
	if err := o.hide(d, name, above, below); err != nil {
		return err
	}
	if !above {
		o.linksChanged(n, -1)
	}
	o.quota.settleDir(d)
	o.unbound(n, dir, name)
	o.dropIndex(n)
	return nil
}

// lastName tells whether no other name of n is known.
func (o *Overlay) lastName(n, dir *node, name string) bool {
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	return len(n.more()) == 0 && n.home == link{dir, name}
}

// unbound takes the link out of the table.
func (o *Overlay) unbound(n, dir *node, name string) {
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	o.unbindLocked(n, dir, name)
	dir.dir.idx.remove(name)
}

// dropIndex removes the index entry of a file that has no name left. It comes after
// what was asked for is done, so that what fails is only said: the entry stays for
// nothing.
func (o *Overlay) dropIndex(n *node) {
	idx := n.indexName()
	if idx == "" {
		return
	}
	st, err := o.work.index.Stat(idx)
	if err == nil {
		n.copyMu.Lock()
		left := n.shownLinks(n.realLinks(st.Nlink))
		n.copyMu.Unlock()
		if left > 0 {
			return
		}
		err = o.work.index.Unlink(idx)
	}
	if err != nil {
		o.log.Warnf("an entry stays in the index of hard links, perhaps of a file without names: %v", err)
		return
	}
	n.copyMu.Lock()
	n.rare().links.index.Store(nil)
	n.rare().links.diff = 0
	n.copyMu.Unlock()
}

// hasBelow tells whether the layers below dir's upper directory have name.
func (o *Overlay) hasBelow(ctx context.Context, dir *node, name string) (bool, error) {
	below := dir.below()
	if len(below) == 0 {
		return false, nil
	}
	f, err := o.tree.find(ctx, below, name)
	if errors.Is(err, syscall.EUCLEAN) {
		return true, nil // damaged, and there
	}
	return len(f.hits) > 0, err
}

// coversBelow is hasBelow of n, which is what dir has as name: where its search found
// it in a layer below, or a directory's in several, that is so for good, and nobody is
// asked.
func (o *Overlay) coversBelow(ctx context.Context, n, dir *node, name string) (bool, error) {
	if n.foundBelow(dir.below(), name) {
		return true, nil
	}
	return o.hasBelow(ctx, dir, name)
}

// foundBelow tells whether n was found under name in one of the places.
func (n *node) foundBelow(places []*place, name string) bool {
	if !n.isDir() {
		return n.lower.name == name && slices.Contains(places, n.lower.place)
	}
	return slices.ContainsFunc(n.stack(), func(p *place) bool { return p.name == name && slices.Contains(places, p.up) })
}

// hide takes name out of the union: above tells whether d has it, below
// whether a layer below has.
func (o *Overlay) hide(d *safefs.Dir, name string, above, below bool) error {
	switch {
	case !below:
		if !above {
			return nil
		}
		return d.Unlink(name)
	case o.work.dotWh:
		if err := o.dotWhiteout(d, name); err != nil || !above {
			return err
		}
		return d.Unlink(name)
	}
	if err := o.work.allowWhiteouts(d); err != nil {
		return err
	}
	if !above {
		return o.work.whiteout(d, name)
	}
	staged := o.work.name()
	if err := o.work.whiteout(o.work.stage, staged); err != nil {
		return err
	}
	if err := o.work.stage.Rename(staged, d, name, 0); err != nil {
		return errors.Join(err, removeTree(o.work.stage, staged))
	}
	return nil
}

// rmdir removes the empty directory name from dir.
func (o *Overlay) rmdir(ctx context.Context, dir *node, name string) error {
	n, err := o.toRemove(ctx, dir, name)
	if err != nil {
		return err
	}
	defer o.forget(n, 1)
	if !n.isDir() {
		return syscall.ENOTDIR
	}
	if len(n.stack()) > 1 || !n.pure() {
		// Read before the locks that others wait for.
		if err := o.complete(ctx, n); err != nil {
			return err
		}
	}
	err = o.rmdirOnce(ctx, n, dir, name)
	if errors.Is(err, syscall.ENOTEMPTY) {
		// Perhaps it holds nothing but marks: that needs a listing.
		if cerr := o.complete(ctx, n); cerr != nil {
			return cerr
		}
		err = o.rmdirOnce(ctx, n, dir, name)
	}
	return err
}

func (o *Overlay) rmdirOnce(ctx context.Context, n, dir *node, name string) (err error) {
	var trash string
	defer func() {
		if err != nil {
			o.discard(trash) // what was staged for it, or nothing
			return
		}
		o.throw(trash)
	}()
	o.renameMu.RLock()
	defer o.renameMu.RUnlock()
	dir.dir.mu.Lock()
	defer dir.dir.mu.Unlock()
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	if !o.boundTo(n, dir, name) {
		return syscall.ENOENT
	}
	return o.inUpperLocked(dir, func(d *safefs.Dir) error {
		trash, err = o.rmdirLocked(ctx, n, dir, name, d)
		return err
	})
}

// discard removes a staged name, "" for none; what fails is swept later.
func (o *Overlay) discard(staged string) {
	if staged == "" {
		return
	}
	full, err := removeEmpty(o.work.stage, staged)
	if full {
		err = o.work.removeFull(staged)
	}
	o.stays(staged, err)
}

// stays says that a staged name could not be removed, if so.
func (o *Overlay) stays(staged string, err error) {
	if err != nil {
		o.log.Warnf("%s stays in the work directory until the next mount: %v", staged, err)
	}
}

// rmdirLocked removes name from d. What it returns is to be removed from work.
func (o *Overlay) rmdirLocked(ctx context.Context, n, dir *node, name string, d *safefs.Dir) (trash string, err error) {
	below, err := o.coversBelow(ctx, n, dir, name)
	if err != nil {
		return "", err
	}
	if n.is(flagUp) && n.pure() && !below {
		r, err := d.Ref(name)
		if err != nil {
			return "", err
		}
		if err = d.Rmdir(name); err == nil {
			o.buried(n, dir, name, r)
			return "", nil
		}
		if err = errors.Join(err, r.Close()); !errors.Is(err, syscall.ENOTEMPTY) {
			return "", err
		}
	}
	if err := o.mustBeEmpty(n); err != nil {
		return "", err
	}
	if !n.is(flagUp) {
		if err := o.hide(d, name, false, true); err != nil {
			return "", err
		}
		o.quota.settleDir(d)
		o.buried(n, dir, name, nil)
		return "", nil
	}
	r, err := d.Ref(name)
	if err != nil {
		return "", err
	}
	if trash, err = o.hideDir(d, name, below); err != nil {
		return trash, errors.Join(err, r.Close())
	}
	o.quota.settleDir(d) // it may have a mark more
	o.buried(n, dir, name, r)
	return trash, nil
}

// mustBeEmpty looks at the directory's index, which is complete, or not empty.
func (o *Overlay) mustBeEmpty(n *node) error {
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	if !n.dir.idx.empty() || !n.dir.idx.complete {
		return syscall.ENOTEMPTY
	}
	return nil
}

// hideDir takes the directory name, which may hold whiteouts, out of d in one
// step, and returns its name in work.
func (o *Overlay) hideDir(d *safefs.Dir, name string, below bool) (string, error) {
	staged := o.work.name()
	switch {
	case !below:
		return staged, o.work.discardDir(d, name, staged, 0)
	case o.work.dotWh:
		if err := o.dotWhiteout(d, name); err != nil {
			return "", err
		}
		return staged, o.work.discardDir(d, name, staged, 0)
	case !o.work.swap:
		return "", fmt.Errorf("the upper's filesystem cannot exchange files: %w", syscall.EOPNOTSUPP)
	}
	if err := o.work.allowWhiteouts(d); err != nil {
		return "", err
	}
	if err := o.work.whiteout(o.work.stage, staged); err != nil {
		return "", err
	}
	return staged, o.work.discardDir(d, name, staged, unix.RENAME_EXCHANGE)
}

// buried makes n a removed directory.
func (o *Overlay) buried(n, dir *node, name string, r *safefs.Ref) {
	n.dir.dead = true
	if r != nil {
		o.holdOrphan(n, r)
	}
	o.unbound(n, dir, name)
}
