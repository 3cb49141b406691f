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

// lookup finds name in dir. The node has one more look-up; it is nil when
// there is no such name. st is its attributes.
func (o *Overlay) lookup(ctx context.Context, dir *node, name string) (n *node, st safefs.Stat, err error) {
	switch {
	case !dir.isDir():
		return nil, st, syscall.ENOTDIR
	case len(name) > maxName:
		return nil, st, syscall.ENAMETOOLONG
	case !safefs.ValidName(name):
		return nil, st, fmt.Errorf("look up %q: %w", name, syscall.EINVAL)
	case o.c.Formats.isMarkFile(name):
		return nil, st, nil
	}
	n, absent := o.known(dir, name)
	if absent {
		return nil, st, nil
	}
	if n == nil {
		n, st, err = o.find(ctx, dir, name)
		if n == nil || err != nil || st.Ino != 0 {
			return n, st, err
		}
	}
	if st, err = o.stat(n); err != nil {
		o.forget(n, 1)
		return nil, st, err
	}
	return n, st, nil
}

// find searches the layers. st is set (its Ino not 0) when the node is new.
func (o *Overlay) find(ctx context.Context, dir *node, name string) (*node, safefs.Stat, error) {
	dir.dir.mu.RLock()
	defer dir.dir.mu.RUnlock()
	hits, err := o.search(ctx, dir, name)
	if err != nil {
		return nil, safefs.Stat{}, err
	}
	if len(hits) == 0 {
		o.missed(dir, name)
		return nil, safefs.Stat{}, nil
	}
	return o.intern(dir, name, hits)
}

// missed remembers that dir, whose lock is held since before the search, has no such
// name: until one is added to it. Not where others may add one (see absences).
func (o *Overlay) missed(dir *node, name string) {
	if o.tree.often == 0 || slices.ContainsFunc(dir.stack(), (*place).besideWork) {
		return
	}
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	if dir.dir.idx.get(name) == nil {
		dir.dir.idx.missing = name
	}
}

// search returns what the layers have under name, top first.
func (o *Overlay) search(ctx context.Context, dir *node, name string) ([]hit, error) {
	if dir.pure() {
		h := hit{spot: spot{dir.upper(), name}}
		err := h.place.with(func(d *safefs.Dir) (err error) {
			if h.st, err = h.place.stat(d, name); err == nil {
				h.kind = kindOf(&h.st)
			}
			if err == nil && h.place.covered(&h.st) {
				return h.place.errCovered(name)
			}
			if err == nil && o.work != nil && o.work.attrWh && o.work.isWhiteout(d, name, &h.st) {
				h.kind = whiteout // left by a mount that was killed as it moved the directory
			}
			return err
		})
		if absent(err) {
			return nil, nil
		}
		if err != nil || h.kind == whiteout {
			return nil, err
		}
		return []hit{h}, nil
	}
	stack := dir.searched()
	if hits := o.ahead.hits(stack, name); hits != nil {
		return hits, nil
	}
	f, err := o.tree.find(ctx, stack, name)
	return f.hits, err
}

// intern returns the node of a finished search with one more look-up. st is
// its attributes when the node is new, else zero.
func (o *Overlay) intern(dir *node, name string, hits []hit) (*node, safefs.Stat, error) {
	n, err := o.nodeOf(dir, hits)
	if err == nil {
		err = o.findAside(n, hits[0].shownBy())
	}
	if err != nil {
		return nil, safefs.Stat{}, err
	}
	o.treeMu.Lock()
	if e := dir.dir.idx.get(name); e != nil && e.node != nil { // another look-up was faster
		e.node.lookups++
		old := e.node
		o.treeMu.Unlock()
		return old, safefs.Stat{}, nil
	}
	for _, k := range n.keys() {
		if old := o.table.byKey[k]; old != nil {
			old.lookups++
			o.bindLocked(old, dir, name)
			o.treeMu.Unlock()
			return old, safefs.Stat{}, nil
		}
	}
	o.addLocked(n, dir, name)
	o.treeMu.Unlock()
	st := hits[0].st
	if n.indexName() != "" && hits[0].place.layer.index != 0 {
		return n, safefs.Stat{}, nil // its attributes are those of the index
	}
	return n, st, o.shown(n, &st)
}

// nodeOf makes the node of a search, in no table yet.
func (o *Overlay) nodeOf(dir *node, hits []hit) (*node, error) {
	top := &hits[0]
	n := newNode(top.st.Type(), 0)
	upper := o.work != nil && top.place.layer.index == 0
	n.setIf(upper, flagUp)
	marked := upper && !dir.pure() // it may carry an origin
	if n.isDir() {
		o.dirOf(n, hits, marked)
		return n, nil
	}
	if !upper {
		n.lower = top.spot
	}
	n.setIf(top.naked && top.st.Nlink == 1, flagNaked)
	if n.typ == unix.S_IFREG && len(hits) > 1 {
		data := hits[1].spot
		n.setData(&data)
	}
	origin := ""
	if marked {
		origin = o.readMark(top.spot, "origin")
	}
	n.ino = o.shownIno(top.st.Dev, top.st.Ino)
	if ino, ok := o.originIno(origin); ok {
		n.ino = ino
	}
	if top.st.Nlink > 1 {
		n.rare().keys = []fileID{{top.st.Dev, top.st.Ino}}
		return n, o.hardLinked(n, top, origin)
	}
	return n, nil
}

// dirOf fills in a directory's node.
func (o *Overlay) dirOf(n *node, hits []hit, marked bool) {
	stack := make([]*place, len(hits))
	for i := range hits {
		stack[i] = hits[i].enter()
	}
	n.setStack(stack)
	own := &hits[0].st
	if n.is(flagUp) && len(hits) > 1 {
		own = &hits[1].st
	}
	n.ino = o.shownIno(own.Dev, own.Ino)
	if !n.is(flagUp) {
		return
	}
	if marked && len(hits) == 1 {
		if ino, ok := o.originIno(o.readMark(hits[0].spot, "origin")); ok {
			n.ino = ino
		}
	}
	if o.readMark(hits[0].spot, "impure") == "y" {
		n.dir.impure.Store(true)
	}
}

// lowerData returns where the content of a lower file is.
func (n *node) lowerData() spot {
	n.copyMu.Lock()
	defer n.copyMu.Unlock()
	if n.data() != nil {
		return *n.data()
	}
	return n.lower
}

// hardLinked completes a node of several links: what the index says of it. Names
// of a lower file of which the index can keep no copy are nodes of their own, as
// in the kernel: a change of one copies that one, and not the file.
func (o *Overlay) hardLinked(n *node, top *hit, origin string) error {
	if o.work == nil {
		return nil
	}
	lowerLinks := uint32(0)
	if !n.is(flagUp) {
		origin = string(o.originOf(top.spot, top.st.Dev))
		lowerLinks = top.st.Nlink
	}
	if o.work.index == nil || origin == "" {
		n.splits(lowerLinks > 0)
		return nil
	}
	name := indexNameOf([]byte(origin))
	st, err := o.work.index.Stat(name)
	if absent(err) {
		n.splits(lowerLinks > 0 && !o.canMark(n.typ))
		return nil
	}
	if err != nil {
		return fmt.Errorf("index of hard links: %w", err)
	}
	if n.is(flagUp) && (st.Dev != top.st.Dev || st.Ino != top.st.Ino) {
		return nil // another copy of the same file: it was split
	}
	shown, err := o.indexLinks(name, st.Nlink, lowerLinks)
	if err != nil {
		return err
	}
	n.rare().links.index.Store(&name)
	n.rare().links.diff = shown - int(st.Nlink)
	n.set(flagUp)
	n.typ = st.Type()
	if k := (fileID{st.Dev, st.Ino}); k != n.keys()[0] {
		n.addKey(k)
	}
	return nil
}

// splits says, of a new node, that it is one name only and not the lower file.
func (n *node) splits(yes bool) {
	if yes {
		n.rare().keys = nil
	}
}

// indexLinks reads the link count that an index entry records.
func (o *Overlay) indexLinks(name string, upper, lower uint32) (int, error) {
	v, err := o.work.index.Getxattr(name, o.work.prefix+"nlink")
	if err != nil && !noXattrs(err) {
		return 0, fmt.Errorf("index of hard links: %w", err)
	}
	if shown, ok := parseLinks(string(v), upper, lower); ok && (lower > 0 || v[0] == 'U') {
		return shown, nil
	}
	return int(upper) - 1, nil // the index is no name
}

// complete makes dir's index of names complete.
func (o *Overlay) complete(ctx context.Context, dir *node) error {
	o.treeMu.Lock()
	done := dir.dir.idx.complete
	o.treeMu.Unlock()
	if done {
		return nil
	}
	dir.dir.mu.RLock()
	defer dir.dir.mu.RUnlock()
	if d := o.ahead.take(dir); d != nil {
		o.fill(dir, d.names)
		return nil
	}
	names, err := o.list(ctx, dir)
	if err != nil {
		return err
	}
	o.fill(dir, names)
	return nil
}

// fill makes dir's index complete with what a listing found, or waits for who is
// at it. dir's lock is held, for reading, since before the listing.
func (o *Overlay) fill(dir *node, names []dirName) {
	x := &dir.dir.idx
	o.treeMu.Lock()
	f, mine := x.fill, x.fill == nil && !x.complete
	if mine {
		f = x.begin()
	}
	o.treeMu.Unlock()
	if !mine {
		if f != nil {
			<-f.done
		}
		return
	}
	f.build(names)
	for more := true; more; {
		o.treeMu.Lock()
		more = x.join(f)
		o.treeMu.Unlock()
	}
}

// list reads the names from the layers, with dir's lock held. Inode numbers
// are filled in where they need no look at the file.
func (o *Overlay) list(ctx context.Context, dir *node) ([]dirName, error) {
	names, err := o.names(ctx, dir.searched(), dir.pure(), 0)
	if errors.Is(err, syscall.ESTALE) && dir.orphan() != nil {
		return nil, nil
	}
	return names, err
}

// names is list by a stack, which is pure or not, with an error if there are more
// than most names; 0: any number.
func (o *Overlay) names(ctx context.Context, stack []*place, pure bool, most int) ([]dirName, error) {
	l := listing{tree: o.tree, plain: true, most: most}
	if len(stack) > 1 {
		l.seen = map[string]struct{}{}
	}
	var out []dirName
	for _, p := range stack {
		from := len(l.entries)
		if err := p.with(func(d *safefs.Dir) error { return l.layer(ctx, p, d) }); err != nil {
			return nil, err
		}
		own := o.ownNumbers(p, pure)
		for _, e := range l.entries[from:] {
			d := dirName{name: e.Name, typ: e.Type}
			if d.typ == unix.S_IFREG && o.c.Formats&Override != 0 {
				d.typ = 0 // it may stand for a device: that is found out when it is looked up
			}
			if own && e.Ino != 0 && (e.Type != unix.S_IFDIR || len(stack) == 1) {
				d.ino = o.shownIno(p.dev, e.Ino)
			}
			out = append(out, d)
		}
		if l.hideBelow(p) {
			break
		}
	}
	return out, nil
}

// ownNumbers tells whether d_ino of the files in p, a place of a directory that
// is pure or not, is what the tree shows.
func (o *Overlay) ownNumbers(p *place, pure bool) bool {
	if !p.exact() {
		return false
	}
	return o.work == nil || p.layer.index != 0 || pure
}

// children returns up to len(buf) names of dir that come after the cookie.
func (o *Overlay) children(ctx context.Context, dir *node, cookie uint64, buf []entry) (int, error) {
	if err := o.complete(ctx, dir); err != nil {
		return 0, err
	}
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	return dir.dir.idx.after(cookie, buf), nil
}

// numberOf returns the d_ino of an entry whose number is not known yet.
func (o *Overlay) numberOf(ctx context.Context, dir *node, name string) (uint64, error) {
	dir.dir.mu.RLock()
	defer dir.dir.mu.RUnlock()
	hits, err := o.search(ctx, dir, name)
	if err != nil || len(hits) == 0 {
		return 0, err
	}
	n, err := o.nodeOf(dir, hits)
	if err != nil {
		return 0, err
	}
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	if e := dir.dir.idx.get(name); e != nil && e.ino == 0 {
		e.ino = n.ino
	}
	return n.ino, nil
}
