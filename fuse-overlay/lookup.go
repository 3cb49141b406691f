package fuseoverlay

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/vnode"
)

// found is the end of a search: hits top first, none when the name is not
// there. A file has one hit, or two when the second holds its data.
type found struct {
	hits []hit
	// volatile: a layer was asked that others may be writing to.
	volatile bool
}

// find searches the stack of a directory for name.
func (t *Tree) find(ctx context.Context, stack []*place, name string) (found, error) {
	s := search{name: name}
	var f found
	atRoots := len(stack) == len(t.layers) && stack[0] == t.layers[0].root
	for i := 0; i < len(stack) && !s.stop; i++ {
		if err := ctx.Err(); err != nil {
			return found{}, err
		}
		p := stack[i]
		f.volatile = f.volatile || p.layer.Volatile
		wasMetacopy := s.metacopy
		f.hits = append(f.hits, hit{})
		keep, err := t.findIn(p, &s, &f.hits[len(f.hits)-1])
		if err != nil {
			return found{}, explainMark(p, err)
		}
		if !keep || wasMetacopy && s.metacopy { // of a chain of metacopies the top one counts
			f.hits = f.hits[:len(f.hits)-1]
		}
		if keep && s.absolute() && !atRoots {
			// From the layers' roots on, below the layer that said so.
			stack, i, atRoots = t.root.at().stack, p.layer.index, true
		}
		if p.ends() {
			break
		}
	}
	if s.metacopy {
		return found{}, errno.New(errno.ErrDamaged, "layer %s: %q is a copy of metadata only and no lower layer has its data: the layer needs the parent that it was made on", f.hits[0].place.layer.Name, name)
	}
	return f, nil
}

// explainMark turns a redirect that cannot be followed into a sentence.
func explainMark(p *place, err error) error {
	var bad badRedirect
	if errors.As(err, &bad) {
		return errno.New(errno.ErrDamaged, "layer %s: %w", p.layer.Name, err)
	}
	return err
}

// findIn looks at one layer: at s.name in p or, when it is absolute, along it
// from p, which is the layer's root then. What it finds goes to h; keep tells
// whether it counts.
func (t *Tree) findIn(p *place, s *search, h *hit) (keep bool, err error) {
	if !s.absolute() {
		return t.findStep(p, s, s.name, step{}, h)
	}
	names, steps := split(s.name)
	for i, name := range names {
		keep, err := t.findStep(p, s, name, steps[i], h)
		if !keep || err != nil || steps[i].end() {
			return keep, err
		}
		p = h.enter()
	}
	return false, nil
}

func (t *Tree) findStep(p *place, s *search, name string, at step, h *hit) (keep bool, err error) {
	if err := p.probe(name, h); err != nil {
		return false, err
	}
	return s.take(h.mark, at, t.last(p))
}

// Lookup implements vnode.Directory.
func (d *dirNode) Lookup(ctx context.Context, name string) (vnode.Child, error) {
	switch {
	case len(name) > maxName:
		return vnode.Child{}, fmt.Errorf("look up: %w", syscall.ENAMETOOLONG)
	case !safefs.ValidName(name):
		return vnode.Child{}, fmt.Errorf("look up %q: %w", name, syscall.EINVAL)
	case d.tree.formats.isMarkFile(name):
		return vnode.Child{Entry: vnode.ValidForever}, nil
	}
	f, err := d.tree.find(ctx, d.at().stack, name)
	if err != nil {
		return vnode.Child{}, err
	}
	c := vnode.Child{Entry: vnode.ValidForever, Attr: vnode.ValidForever}
	if f.volatile {
		c.Entry = vnode.ValidNone
	}
	if len(f.hits) == 0 {
		return c, nil
	}
	if f.hits[0].place.layer.Volatile {
		c.Attr = vnode.ValidCall
	}
	c.Node = d.tree.node(f.hits)
	return c, nil
}

// node makes the node of a finished search.
func (t *Tree) node(hits []hit) vnode.Node {
	top := &hits[0]
	ino := top.place.number(&top.st)
	pos := positionOf(hits)
	var w *where
	var seen *safefs.Stat
	if top.place.layer.Volatile {
		w = t.moved.place(fileKey{ino, top.kind}, pos)
	} else {
		st := top.st
		w, seen = newWhere(pos), &st
	}
	switch top.st.Type() {
	case unix.S_IFDIR:
		n := &dirNode{}
		n.init(t, ino, w, seen)
		return n
	case unix.S_IFREG:
		n := &fileNode{}
		n.init(t, ino, w, seen)
		return n
	case unix.S_IFLNK:
		n := &linkNode{}
		n.init(t, ino, w, seen)
		return n
	default:
		n := &specialNode{}
		n.init(t, ino, w, seen)
		return n
	}
}

func positionOf(hits []hit) *position {
	pos := &position{spot: hits[0].spot}
	if hits[0].kind == directory {
		pos.stack = make([]*place, len(hits))
		for i := range hits {
			pos.stack[i] = hits[i].enter()
		}
	} else if len(hits) > 1 {
		at := hits[1].spot
		pos.data = &at
	}
	return pos
}

// number is the inode number of a file in p.
func (p *place) number(st *safefs.Stat) uint64 {
	return p.tree.space.Number(uint64(p.layer.index), st.Dev, st.Ino)
}
