package layertar

import (
	"context"
	"errors"
	"runtime"

	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/unix"
)

// nativeWalk reads the difference off an overlay's upper directory. What is
// below is looked at only where the walk's user asks for it, or a redirect or
// metacopy refers to it.
type nativeWalk struct {
	ctx   context.Context
	s     *Source
	ask   asked
	all   *union // the upper and what is below it
	low   *union // what is below
	yield func(*event) error
	typed func(typ uint32) bool // typeIsEnough
	buf   [256]byte             // for sameXattrs
	// levels[depth] is for the names of the directory that is listed now.
	levels []*level
	depth  int
	lists  listRoom
	peek   []byte // for shows
	// fork, if set, is for what a second goroutine does (ahead.go); split says
	// that there is one.
	fork  func(*room) fork
	room  *room
	split bool
}

func newNativeWalk(ctx context.Context, s *Source, ask asked, all, low *union) *nativeWalk {
	w := &nativeWalk{ctx: ctx, s: s, ask: ask, all: all, low: low}
	w.typed = w.typeIsEnough
	return w
}

// asked is what the user of a walk wants to know of its events: flags.
type asked uint8

const (
	askKinds   asked = 1 << iota // whether they are an Add or a Modify, or quiet
	askShown                     // with askKinds and nothing else: see nativeWalk.shows
	askDirs                      // the attributes of directories
	askFiles                     // the attributes of other files
	askSpecial                   // the attributes of files that are neither directories nor regular
)

func walkNative(ctx context.Context, s *Source, ask asked, yield func(*event) error, fork func(*room) fork) (err error) {
	all, err := openUnion(append([]string{s.Upper}, s.Lowers...), s.UpperStyle)
	if err != nil {
		return err
	}
	defer closing(&err, all.close)
	w := newNativeWalk(ctx, s, ask, all, &union{roots: all.roots[1:], style: s.UpperStyle})
	w.yield = yield
	if runtime.GOMAXPROCS(0) > 1 {
		w.fork, w.room = fork, &room{left: aheadRoom, scratch: make([]byte, firstBuf)}
	}
	d, err := all.roots[0].OpenDirToRead(".")
	if err != nil {
		return err
	}
	defer closing(&err, d.Close)
	top, err := all.part(d, 0)
	if err != nil {
		return err
	}
	var ls share
	if err := all.shareTo(&ls, &top, &w.lists); err != nil {
		return err
	}
	ls.typed = w.typed
	low := &below{w: w}
	defer closing(&err, low.close)
	return w.list("", &ls, low)
}

// level is what a walk has in hand at one depth: a name, and where that is a
// directory, its listing. Each is used for one name after the other, so that most
// names cost no allocation; nobody keeps a part of it.
type level struct {
	w   *nativeWalk
	ev  event
	ent uentry
	l   listed
	low below // at the name, if it is a directory
	// share is the directory's own, and p its marks; attrs is room for the names of
	// its attributes.
	share share
	p     part
	attrs [128]byte
}

// level returns that of the walk's depth, ready for the next name.
func (w *nativeWalk) level() *level {
	if w.depth == len(w.levels) {
		w.levels = append(w.levels, &level{w: w})
	}
	lv := w.levels[w.depth]
	parts := lv.low.dir.parts[:0]
	lv.low = below{w: w}
	lv.low.dir.parts = parts
	return lv
}

// below is what the lower layers have at the path of a directory of the upper,
// regardless of opaque marks above; it is opened when it is asked for.
type below struct {
	w    *nativeWalk
	up   *below // of the directory above; nil for the root
	name string
	// ent is what the name stands for in up, if found; known says that it was
	// looked up.
	ent          uentry
	known, found bool
	dir          udir // open, if opened
	opened       bool
}

// exists looks the name up in what is below the directory above.
func (b *below) exists() (bool, error) {
	if !b.known && len(b.dir.parts) > 0 {
		return true, nil
	}
	if b.known {
		return b.found, nil
	}
	up, err := b.up.open()
	if err == nil {
		b.found, err = b.w.low.childTo(&b.ent, up, b.name)
		b.known = err == nil
	}
	return b.found, err
}

// isDir tells, after exists, whether there is a directory.
func (b *below) isDir() bool {
	return len(b.dir.parts) > 0 || (b.found && b.ent.st.IsDir())
}

// self is that directory with its attributes.
func (b *below) self() (*uentry, error) {
	if b.known {
		return &b.ent, nil
	}
	d := b.dir.parts[0].d
	st, err := d.Stat(".")
	return &uentry{name: ".", dir: d, st: st}, err
}

// open opens it: an empty directory when there is none.
func (b *below) open() (*udir, error) {
	if b.opened {
		return &b.dir, nil
	}
	if b.up == nil {
		err := b.w.low.rootTo(&b.dir)
		b.opened = err == nil
		return &b.dir, err
	}
	up, err := b.up.open()
	if err != nil {
		return nil, err
	}
	switch {
	case !b.known:
		var stopped bool
		stopped, err = b.w.low.gather(&b.dir, up, b.name, 0)
		b.known = err == nil && !stopped && len(b.dir.parts) == 0 // nothing has the name
	case b.found && b.ent.st.IsDir():
		err = b.w.low.openTo(&b.dir, up, &b.ent)
	}
	if err != nil {
		return nil, errors.Join(err, b.dir.close())
	}
	b.opened = true
	return &b.dir, nil
}

func (b *below) close() error {
	b.opened = false
	return b.dir.close()
}

// under returns the directory of all layers: the upper's own share, and those
// below with the numbers that they have in all.
func (b *below) under(d *safefs.Dir) (*udir, error) {
	low, err := b.open()
	if err != nil {
		return nil, err
	}
	out := &udir{parts: []part{{d: d}}}
	for _, p := range low.parts {
		p.layer++
		out.parts = append(out.parts, p)
	}
	return out, nil
}

// list walks what is in a directory of the upper.
func (w *nativeWalk) list(path string, ls *share, low *below) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	t := w.ahead(path, ls, low)
	defer t.close()
	for i := 0; ls.names.next(); i++ {
		done, err := t.join(ls.names.mark)
		if !done && err == nil && i < len(ls.seen) {
			done, err = w.tellSeen(&ls.seen[i])
		}
		if !done && err == nil {
			full := joinBytes(path, ls.names.last)
			err = w.look(full, full[len(full)-len(ls.names.last):], ls, ls.names.mark, low)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// look tells what a name of a directory stands for, if it still does.
func (w *nativeWalk) look(path, name string, ls *share, mark nameMark, low *below) error {
	lv := w.level()
	ok, err := ls.look(name, mark, &lv.l)
	if ok && err == nil {
		err = w.name(lv, path, ls.p, low)
	}
	if vanished(err) {
		return nil
	}
	return err
}

// name tells what a name of a directory says.
func (w *nativeWalk) name(lv *level, path string, p *part, low *below) error {
	lv.ent = uentry{name: lv.l.name, dir: p.d, st: lv.l.st}
	lv.ev = event{path: path, u: w.all, low: low, ent: &lv.ent}
	lv.low.up, lv.low.name = low, lv.l.name
	switch {
	case lv.l.white:
		lv.ev.kind, lv.ev.what = Delete, gone
		return w.yield(&lv.ev)
	case lv.ent.st.IsDir():
		return w.subdir(lv)
	}
	if err := w.judge(lv); err != nil {
		return err
	}
	return w.yield(&lv.ev)
}

// judge tells whether a name is an Add or a Modify, if that is asked for.
func (w *nativeWalk) judge(lv *level) error {
	lv.ev.kind = Add
	if w.ask&askKinds == 0 {
		return nil
	}
	found, err := lv.low.exists()
	if found {
		lv.ev.kind = Modify
	}
	return err
}

// typeIsEnough tells of which files, by their type, no attributes are wanted
// yet: those of directories are read when they are open.
func (w *nativeWalk) typeIsEnough(typ uint32) bool {
	switch typ {
	case unix.S_IFDIR:
		return true
	case unix.S_IFREG:
		return w.ask&askFiles == 0
	}
	return w.ask&(askFiles|askSpecial) == 0
}

// subdir walks a directory of the upper. One that is opaque, or has been moved
// here (a redirect), is new whatever is below.
func (w *nativeWalk) subdir(lv *level) (err error) {
	ev, low := &lv.ev, &lv.low
	d, err := ev.ent.dir.OpenDirToRead(ev.ent.name)
	if err != nil {
		return ofEntry(err)
	}
	defer closing(&err, d.Close)
	if w.ask&askDirs != 0 {
		if ev.ent.st, err = d.Stat("."); err != nil {
			return err
		}
	}
	if lv.p, err = w.all.marked(d, 0, lv.attrs[:]); err != nil {
		return err
	}
	if err := w.all.shareTo(&lv.share, &lv.p, &w.lists); err != nil {
		return err
	}
	lv.share.typed = w.typed
	if lv.share.opaque {
		lv.p.opaque = opaqueAll
	}
	defer closing(&err, low.close)
	ev.ent.names, ev.ent.listed = lv.p.names, true
	moved := lv.p.opaque != opaqueAll && w.all.redirect(lv.p.redirect) != ""
	if err := w.tellDir(lv, lv.p.opaque == opaqueAll || moved); err != nil {
		return err
	}
	if moved {
		return w.moved(ev)
	}
	w.depth++
	err = w.list(ev.path, &lv.share, low)
	w.depth--
	return err
}

// tellDir yields a directory and, when it is new over what is below, its
// opaque mark.
func (w *nativeWalk) tellDir(lv *level, fresh bool) (err error) {
	ev := &lv.ev
	if fresh {
		ev.kind = Add
		if err := w.yield(ev); err != nil {
			return err
		}
		return w.yield(&event{path: ev.path, what: opaqueDir, ent: ev.ent})
	}
	if w.ask&askKinds != 0 && lv.share.names.plain > 0 {
		// What is in it is looked up in what is below, which a stat need not find then.
		if _, err := lv.low.open(); err != nil {
			return err
		}
	}
	if err := w.judge(lv); err != nil {
		return err
	}
	if w.ask&askKinds != 0 && lv.low.isDir() {
		if shows, err := w.shows(lv); err != nil {
			return err
		} else if !shows {
			if ev.quiet, err = lv.same(); err != nil {
				return err
			}
		}
	}
	return w.yield(ev)
}

// fewNames is how many names a directory has at most to be looked through first.
const fewNames = 64

// seen is what was found under a name before its directory was told.
type seen struct {
	path string
	what seenWhat
}

type seenWhat uint8

const (
	seenLater  seenWhat = iota // a directory: to be looked at
	seenGone                   // nothing by now
	seenAdd                    // not below
	seenModify                 // below, too
	seenDelete                 // a whiteout
)

// shows tells whether something was added to or deleted from a directory, which
// then is a change whatever it is itself, and no look at it is needed. What it
// finds on the way is kept for list.
func (w *nativeWalk) shows(lv *level) (found bool, err error) {
	names := lv.share.names // its own place in the list
	if w.ask&askShown == 0 || names.n > fewNames {
		return false, nil
	}
	w.depth++
	names.last = w.peek[:0]
	for !found && err == nil && names.next() {
		s := seen{path: joinBytes(lv.ev.path, names.last)}
		s.what, err = w.see(lv, s.path[len(s.path)-len(names.last):], names.mark)
		found = s.what == seenAdd || s.what == seenDelete
		lv.share.seen = append(lv.share.seen, s)
	}
	w.peek = names.last
	w.depth--
	return found, err
}

// see looks at a name of a directory.
func (w *nativeWalk) see(dir *level, name string, mark nameMark) (seenWhat, error) {
	lv := w.level()
	ok, err := dir.share.look(name, mark, &lv.l)
	switch {
	case vanished(err) || (err == nil && !ok):
		return seenGone, nil
	case err != nil:
		return seenGone, err
	case lv.l.white:
		return seenDelete, nil
	case lv.l.st.IsDir():
		return seenLater, nil
	}
	lv.low.up, lv.low.name = &dir.low, name
	if err := w.judge(lv); err != nil {
		return seenGone, err
	}
	if lv.ev.kind == Modify {
		return seenModify, nil
	}
	return seenAdd, nil
}

// tellSeen tells of a name what was seen; false where it is to be looked at.
func (w *nativeWalk) tellSeen(s *seen) (bool, error) {
	lv := w.level()
	lv.ev = event{path: s.path, ent: &lv.ent}
	lv.ent = uentry{}
	switch s.what {
	case seenLater:
		return false, nil
	case seenGone:
		return true, nil
	case seenAdd:
		lv.ev.kind = Add
	case seenModify:
	case seenDelete:
		lv.ev.kind, lv.ev.what = Delete, gone
	}
	return true, w.yield(&lv.ev)
}

// same tells whether a directory of the upper, of which there is one below, only
// leads to what is in it.
func (lv *level) same() (bool, error) {
	low, err := lv.low.self()
	if err != nil {
		return false, err
	}
	if lv.w.ask&askDirs == 0 {
		if lv.ent.st, err = lv.p.d.Stat("."); err != nil {
			return false, err
		}
	}
	a, b := &lv.ent.st, &low.st
	if a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID || !a.Mtime.Equal(b.Mtime) {
		return false, nil
	}
	return sameXattrs(&lv.ent, low, lv.w.buf[:])
}

// moved exports a directory with a redirect whole: its content is the union of
// the upper's share and of what it refers to, wherever that was.
func (w *nativeWalk) moved(ev *event) (err error) {
	parent, err := ev.low.under(ev.ent.dir) // of borrowed directories
	if err != nil {
		return err
	}
	d, err := w.all.open(parent, ev.ent)
	if err != nil {
		return err
	}
	defer closing(&err, d.close)
	c := compare{ctx: w.ctx, s: w.s, u: w.all, yield: w.yield}
	return c.added(ev.path, d)
}

// parts returns the directory that an event's file is in, with what is below
// it: a metacopy's data may be there. Its descriptors stay the walk's.
func (e *event) parts() (*udir, error) {
	if e.low == nil {
		return e.dir, nil
	}
	return e.low.under(e.ent.dir)
}
