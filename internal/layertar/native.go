package layertar

import (
	"context"
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
	buf   [256]byte // for sameXattrs
	// fork, if set, is for what a second goroutine does (ahead.go); split says
	// that there is one.
	fork  func(*room) fork
	room  *room
	split bool
}

// asked is what the user of a walk wants to know of its events: flags.
type asked uint8

const (
	askKinds   asked = 1 << iota // whether they are an Add or a Modify, or quiet
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
	w := &nativeWalk{ctx: ctx, s: s, ask: ask, all: all, low: &union{roots: all.roots[1:], style: s.UpperStyle}, yield: yield}
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
	low := &below{w: w}
	defer closing(&err, low.close)
	return w.dir("", &top, low)
}

// below is what the lower layers have at the path of a directory of the upper,
// regardless of opaque marks above; it is opened when it is asked for.
type below struct {
	w    *nativeWalk
	up   *below // of the directory above; nil for the root
	name string
	// ent is what the name stands for in up, nil for nothing; known says that
	// it was looked up.
	ent   *uentry
	known bool
	dir   *udir // nil until it is opened
}

// entry looks the name up in what is below the directory above.
func (b *below) entry() (*uentry, error) {
	if b.known {
		return b.ent, nil
	}
	up, err := b.up.open()
	if err == nil {
		b.ent, err = b.w.low.child(up, b.name)
		b.known = err == nil
	}
	return b.ent, err
}

// open opens it: an empty directory when there is none.
func (b *below) open() (*udir, error) {
	if b.dir != nil {
		return b.dir, nil
	}
	if b.up == nil {
		dir, err := b.w.low.root()
		b.dir = dir
		return dir, err
	}
	ent, err := b.entry()
	if err != nil {
		return nil, err
	}
	dir := &udir{}
	if ent != nil && ent.st.IsDir() {
		if dir, err = b.w.low.open(b.up.dir, ent); err != nil {
			return nil, err
		}
	}
	b.dir = dir
	return dir, nil
}

func (b *below) close() error {
	if b.dir == nil {
		return nil
	}
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

// dir walks one directory of the upper.
func (w *nativeWalk) dir(path string, p *part, low *below) error {
	ls, err := w.all.share(p)
	if err != nil {
		return err
	}
	return w.list(path, ls, low)
}

// list walks what is in a directory of the upper.
func (w *nativeWalk) list(path string, ls *share, low *below) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	ls.typed = w.typeIsEnough
	t := w.ahead(path, ls, low)
	defer t.close()
	for {
		name, mark, more := ls.names.next()
		if !more {
			return nil
		}
		done, err := t.join(name)
		if !done && err == nil {
			err = w.look(path, ls, name, mark, low)
		}
		if err != nil {
			return err
		}
	}
}

// look tells what a name of a directory stands for, if it still does.
func (w *nativeWalk) look(path string, ls *share, name string, mark nameMark, low *below) error {
	var l listed
	ok, err := ls.look(name, mark, &l)
	if ok && err == nil {
		err = w.name(path, ls.p, &l, low)
	}
	if vanished(err) {
		return nil
	}
	return err
}

// name tells what a name of a directory says.
func (w *nativeWalk) name(path string, p *part, l *listed, low *below) error {
	ent := &uentry{name: l.name, dir: p.d, st: l.st}
	ev := &event{path: join(path, l.name), u: w.all, low: low, ent: ent}
	if l.white {
		ev.kind, ev.what = Delete, gone
		return w.yield(ev)
	}
	return w.entry(ev)
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

func (w *nativeWalk) entry(ev *event) error {
	b := &below{w: w, up: ev.low, name: ev.ent.name}
	ev.kind = Add
	if w.ask&askKinds != 0 {
		ent, err := b.entry()
		if err != nil {
			return err
		}
		if ent != nil {
			ev.kind = Modify
		}
	}
	if !ev.ent.st.IsDir() {
		return w.yield(ev)
	}
	return w.subdir(ev, b)
}

// subdir walks a directory of the upper. One that is opaque, or has been moved
// here (a redirect), is new whatever is below.
func (w *nativeWalk) subdir(ev *event, low *below) (err error) {
	d, err := ev.ent.dir.OpenDirToRead(ev.ent.name)
	if err != nil {
		return ofEntry(err)
	}
	defer closing(&err, d.Close)
	if w.ask&(askDirs|askKinds) != 0 {
		if ev.ent.st, err = d.Stat("."); err != nil {
			return err
		}
	}
	sub, err := w.all.marked(d, 0)
	if err != nil {
		return err
	}
	ls, err := w.all.share(&sub)
	if err != nil {
		return err
	}
	if ls.opaque {
		sub.opaque = opaqueAll
	}
	defer closing(&err, low.close)
	ev.ent.names, ev.ent.listed = sub.names, true
	moved := sub.opaque != opaqueAll && w.all.redirect(sub.redirect) != ""
	if err := w.tellDir(ev, low, sub.opaque == opaqueAll || moved); err != nil {
		return err
	}
	if moved {
		return w.moved(ev)
	}
	return w.list(ev.path, ls, low)
}

// tellDir yields a directory and, when it is new over what is below, its
// opaque mark.
func (w *nativeWalk) tellDir(ev *event, low *below, fresh bool) (err error) {
	if !fresh {
		if w.ask&askKinds != 0 && low.ent != nil && low.ent.st.IsDir() {
			if ev.quiet, err = w.sameDir(ev, low.ent); err != nil {
				return err
			}
		}
		return w.yield(ev)
	}
	ev.kind = Add
	if err := w.yield(ev); err != nil {
		return err
	}
	return w.yield(&event{path: ev.path, what: opaqueDir, ent: ev.ent})
}

// sameDir tells whether a directory of the upper only leads to what is in it.
func (w *nativeWalk) sameDir(ev *event, below *uentry) (bool, error) {
	a, b := &ev.ent.st, &below.st
	if a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID || !a.Mtime.Equal(b.Mtime) {
		return false, nil
	}
	return sameXattrs(ev.ent, below, w.buf[:])
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
