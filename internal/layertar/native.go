package layertar

import (
	"context"
	"errors"

	"github.com/plyfs/plyfs/internal/safefs"
)

// nativeWalk reads the difference off an overlay's upper directory.
type nativeWalk struct {
	ctx   context.Context
	s     *Source
	all   *union // the upper and what is below it
	low   *union // what is below
	yield func(*event) error
}

func walkNative(ctx context.Context, s *Source, yield func(*event) error) (err error) {
	all, err := openUnion(append([]string{s.Upper}, s.Lowers...), s.UpperStyle)
	if err != nil {
		return err
	}
	defer closing(&err, all.close)
	w := &nativeWalk{ctx, s, all, &union{roots: all.roots[1:], style: s.UpperStyle}, yield}
	top, err := all.roots[0].OpenDir(".")
	if err != nil {
		return err
	}
	low, err := w.low.root()
	if err != nil {
		return errors.Join(err, top.Close())
	}
	return errors.Join(w.dir("", top, low), top.Close(), low.close())
}

// dir walks one directory of the upper; low is what is below at that path,
// regardless of opaque marks above.
func (w *nativeWalk) dir(path string, d *safefs.Dir, low *udir) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	ls, err := w.all.share(d)
	if err != nil {
		return err
	}
	own := &udir{parts: []part{{d, 0}}}
	for {
		var l listed
		if more, err := ls.next(&l); !more || err != nil {
			return err
		}
		ent := &uentry{l.name, d, 0, l.st}
		ev := &event{path: join(path, l.name), u: w.all, dir: own, ent: ent}
		if l.white {
			ev.kind, ev.what = Delete, gone
			err = w.yield(ev)
		} else {
			err = w.entry(ev, low)
		}
		if err != nil {
			return err
		}
	}
}

func (w *nativeWalk) entry(ev *event, low *udir) error {
	below, err := w.low.child(low, ev.ent.name)
	if err != nil {
		return err
	}
	ev.kind = Add
	if below != nil {
		ev.kind = Modify
	}
	if !ev.ent.st.IsDir() {
		// A metacopy's data is below: give it the whole directory to look in.
		ev.dir = &udir{parts: append([]part{{ev.ent.dir, 0}}, shifted(low)...)}
		return w.yield(ev)
	}
	return w.subdir(ev, low, below)
}

// shifted are low's shares with the numbers that they have in all.
func shifted(low *udir) []part {
	out := make([]part, len(low.parts))
	for i, p := range low.parts {
		out[i] = part{p.d, p.layer + 1}
	}
	return out
}

// subdir walks a directory of the upper. One that is opaque, or has been moved
// here (a redirect), is new whatever is below.
func (w *nativeWalk) subdir(ev *event, low *udir, below *uentry) (err error) {
	sub, err := ev.ent.dir.OpenDir(ev.ent.name)
	if err != nil {
		return err
	}
	defer closing(&err, sub.Close)
	mark, err := w.all.opaque(sub)
	if err != nil {
		return err
	}
	red, err := w.all.attr(sub, ".", "redirect")
	if err != nil {
		return err
	}
	next := &udir{}
	wasDir := below != nil && below.st.IsDir()
	if wasDir {
		if next, err = w.low.open(low, below); err != nil {
			return err
		}
		defer closing(&err, next.close)
	}
	moved := mark != opaqueAll && w.all.redirect(string(red)) != ""
	if err := w.tellDir(ev, below, wasDir, mark == opaqueAll || moved); err != nil {
		return err
	}
	if moved {
		return w.moved(ev, low)
	}
	return w.dir(ev.path, sub, next)
}

// tellDir yields a directory and, when it is new over what is below, its
// opaque mark.
func (w *nativeWalk) tellDir(ev *event, below *uentry, wasDir, fresh bool) error {
	if !fresh && wasDir {
		var err error
		if ev.quiet, err = w.sameDir(ev, below); err != nil {
			return err
		}
	}
	if !fresh {
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
	return sameXattrs(ev.ent, below, make([]byte, 256))
}

// moved exports a directory with a redirect whole: its content is the union of
// the upper's share and of what it refers to, wherever that was.
func (w *nativeWalk) moved(ev *event, low *udir) (err error) {
	parent := &udir{parts: append([]part{{ev.ent.dir, 0}}, shifted(low)...)}
	d, err := w.all.open(parent, ev.ent)
	if err != nil {
		return err
	}
	defer closing(&err, d.close)
	c := compare{ctx: w.ctx, s: w.s, u: w.all, yield: w.yield}
	return c.added(ev.path, d)
}
