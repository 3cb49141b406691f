package fuseoverlay

import (
	"context"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/vnode"
)

// checkEvery is how many entries are listed between looks at the context.
const checkEvery = 1024

// listing collects the union of a stack's entries, top first.
type listing struct {
	tree    *Tree
	entries []vnode.Dirent
	// seen holds names that are decided: listed, or hidden from layers below.
	// It is nil when there is nothing to merge.
	seen map[string]struct{}
	// hide collects one layer's `.wh.` marks, which bind lower layers only.
	hide []string
	// plain leaves numbers as the layer's filesystem gives them, 0 where that
	// is not what stat says.
	plain bool
	// most is how many names there may be before it is given up (E2BIG); 0: any
	// number.
	most int
}

// ReadDir implements vnode.Directory: each name where it is found first, in
// the order of the layers and of their filesystems.
func (d *dirNode) ReadDir(ctx context.Context) ([]vnode.Dirent, error) {
	l := listing{tree: d.tree}
	stack := d.at().stack
	if len(stack) > 1 {
		l.seen = map[string]struct{}{}
	}
	for _, p := range stack {
		if err := p.with(func(dir *safefs.Dir) error { return l.layer(ctx, p, dir) }); err != nil {
			return nil, err
		}
		if l.hideBelow(p) {
			break
		}
	}
	return l.entries, nil
}

// hideBelow lets the marks of p, just listed, take effect on the layers below;
// it tells whether none of them is to be listed.
func (l *listing) hideBelow(p *place) bool {
	for _, name := range l.hide {
		if l.seen != nil {
			l.seen[name] = struct{}{}
		}
	}
	l.hide = l.hide[:0]
	return p.ends()
}

// layer adds what p has.
func (l *listing) layer(ctx context.Context, p *place, dir *safefs.Dir) error {
	if p.empty {
		return nil
	}
	if p.writable() {
		return p.tree.loans.during(dir.Self(), func() error { return l.read(ctx, p, dir) })
	}
	return l.read(ctx, p, dir)
}

func (l *listing) read(ctx context.Context, p *place, dir *safefs.Dir) error {
	n := 0
	return dir.ReadDir(func(e safefs.Entry) error {
		if n++; n%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if l.most > 0 && max(n, len(l.entries), len(l.seen)) > l.most {
			return syscall.E2BIG
		}
		if l.tree.formats.isMarkFile(e.Name) {
			if hidden := whitedOut(e.Name); hidden != "" && !l.tree.last(p) {
				l.hide = append(l.hide, hidden)
			}
			return nil
		}
		if _, ok := l.seen[e.Name]; ok {
			return nil
		}
		return l.add(p, dir, e)
	})
}

// add decides on one entry that no layer above has.
func (l *listing) add(p *place, dir *safefs.Dir, e safefs.Entry) error {
	d := vnode.Dirent{Name: e.Name, Type: e.Type}
	var hidden bool
	if p.exact() && e.Type != 0 && e.Type != unix.S_IFCHR && (!p.mayHoldWhiteouts() || e.Type != unix.S_IFREG) {
		if d.Ino = e.Ino; !l.plain {
			d.Ino = p.number(&safefs.Stat{Dev: p.dev, Ino: e.Ino})
		}
	} else {
		st, err := p.stat(dir, e.Name)
		if absent(err) { // gone since: a volatile layer
			return nil
		}
		if err != nil {
			return err
		}
		if d.Type = st.Type(); !l.plain {
			d.Ino = p.number(&st)
		}
		if hidden, err = l.isWhiteout(p, dir, e.Name, &st); err != nil {
			return err
		}
	}
	if l.seen != nil {
		l.seen[e.Name] = struct{}{}
	}
	if !hidden {
		l.entries = append(l.entries, d)
	}
	return nil
}

func (l *listing) isWhiteout(p *place, dir *safefs.Dir, name string, st *safefs.Stat) (bool, error) {
	switch {
	case p.covered(st):
		return false, nil
	case kindOf(st) == whiteout:
		return true, nil
	}
	if !p.mayHoldWhiteouts() || st.Type() != unix.S_IFREG || st.Size != 0 || l.tree.last(p) {
		return false, nil
	}
	names, err := dir.Listxattr(name)
	if err != nil && !noXattrs(err) {
		return false, err
	}
	return l.tree.formats.hasWhiteout(names), nil
}
