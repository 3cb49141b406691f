package fuseoverlay

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/internal/safefs"
)

// An orphan is a node without a name, which the kernel may hold open: it lives
// by a descriptor. Whoever opens files and removes them decides how many there
// are, so that beyond a number (maxOrphans) those that are not directories live
// by a further name, in work, instead. The node has both until it is forgotten,
// or has a name again.
//
// The kernel forgets a file that is removed and that nobody has open after requests
// that came later, and until then it takes room. So whoever finds none waits for that.

const (
	// forgetsWait is how long at most who finds no room waits for the kernel to forget
	// what was removed; more than the two ticks after which a dialogue gives way to the
	// others, who read that. Files that programs hold open are not forgotten.
	forgetsWait = 50 * time.Millisecond
	// forgetsPause is how often it looks; where as many are there as the last time, no
	// more is waited for.
	forgetsPause = 2 * time.Millisecond
)

// forgotten waits for what lost its last name to be forgotten, and tells whether there
// was anything of that kind since somebody waited last. The caller holds no lock.
func (o *Overlay) forgotten(ctx context.Context) bool {
	ever := o.orphaned.Load()
	if ever == o.awaited.Load() {
		return false
	}
	first := o.orphans.Load()
	last := first
	for end := time.Now().Add(forgetsWait); last > 0 && stopped(ctx) == nil && time.Now().Before(end); {
		time.Sleep(forgetsPause)
		now := o.orphans.Load()
		if now < first && now == last {
			break
		}
		last = now
	}
	o.awaited.Store(ever)
	return true
}

// holdOrphan makes r what holds n.
func (o *Overlay) holdOrphan(n *node, r *safefs.Ref) {
	if old := n.swapOrphan(r); old == nil {
		o.orphans.Add(1)
		o.orphaned.Add(1)
	} else {
		_ = old.Close() // of a node that nobody knew yet
	}
}

// keepOrphan holds n, an upper file whose last known name, in d, is about to
// go. n may be held already, from when it had no name before.
func (o *Overlay) keepOrphan(n *node, d *safefs.Dir, name string) error {
	if n.orphan() != nil || n.keptName() != "" {
		return nil
	}
	if idx := n.indexName(); idx != "" {
		d, name = o.work.index, idx
	}
	if o.orphans.Load() >= o.maxOrphans {
		err := o.keepByName(n, func(to string) error { return d.Link(name, o.work.stage, to) })
		if !errors.Is(err, syscall.EMLINK) && !errors.Is(err, syscall.EPERM) {
			return err
		}
	}
	r, err := o.holderOf(n, d, name)
	if err == nil {
		o.holdOrphan(n, r)
	}
	return err
}

// holderOf opens n, whose name in d is given, or has it held by a second descriptor
// of what it is open by.
func (o *Overlay) holderOf(n *node, d *safefs.Dir, name string) (*safefs.Ref, error) {
	b := o.fds.peek(n)
	if b == nil {
		return d.Ref(name)
	}
	defer o.fds.leave(b)
	return safefs.OpenedRef(b.fd).Dup()
}

// keepByName gives n a name in work; link makes it.
func (o *Overlay) keepByName(n *node, link func(to string) error) error {
	to := o.work.name()
	if err := link(to); err != nil {
		return err
	}
	n.rare().kept.Store(&to)
	return nil
}

// holdUnnamed holds n, a new file that has, or will have, no name and is open as r,
// which is n's from now on.
func (o *Overlay) holdUnnamed(n *node, r *safefs.Ref) error {
	if o.orphans.Load() < o.maxOrphans {
		o.holdOrphan(n, r)
		return nil
	}
	err := o.keepByName(n, func(to string) error { return r.Link(o.work.stage, to) })
	return errors.Join(err, r.Close())
}

// named gives back what holds n, which has a name again. Others may be at work
// with it, with renameMu held.
func (o *Overlay) named(n *node) {
	if n.orphan() == nil && n.keptName() == "" {
		return
	}
	o.renameMu.Lock()
	defer o.renameMu.Unlock()
	if o.homeOf(n).dir == nil {
		return // and lost it
	}
	if to := n.keptName(); to != "" {
		if err := o.work.stage.Unlink(to); err != nil {
			return // it has both until it is forgotten
		}
		n.rare().kept.Store(nil)
	}
	if r := n.swapOrphan(nil); r != nil {
		o.orphans.Add(-1)
		_ = r.Close() // O_PATH, or a file that has a name: nothing to lose
	}
}

// letGo gives back what holds a node that is in no table any more.
func (o *Overlay) letGo(n *node) {
	if r := n.swapOrphan(nil); r != nil {
		if o.quota != nil {
			if st, err := r.Stat(); err == nil && (st.Nlink == 0 || n.isDir()) {
				o.quota.drop(st.Ino)
			}
		}
		_ = r.Close()     // O_PATH, or a file without a name: nothing to lose
		o.orphans.Add(-1) // now there is room
	}
	to := n.keptName()
	if to == "" {
		return
	}
	if st, err := o.work.stage.Stat(to); err == nil && st.Nlink == 1 {
		o.quota.drop(st.Ino)
	}
	o.discard(to)
}

// realLinks returns how many of k links of n's file are names, of the tree or below.
func (n *node) realLinks(k uint32) uint32 {
	if k > 0 && n.keptName() != "" {
		return k - 1
	}
	return k
}
