package fuseoverlay

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/vnode"
)

// What the nodes can do.
var (
	_ vnode.Directory  = (*dirNode)(nil)
	_ vnode.Xattrer    = (*dirNode)(nil)
	_ vnode.Forgetter  = (*dirNode)(nil)
	_ vnode.Statfser   = (*dirNode)(nil)
	_ vnode.Opener     = (*fileNode)(nil)
	_ vnode.Xattrer    = (*fileNode)(nil)
	_ vnode.Symlink    = (*linkNode)(nil)
	_ vnode.Xattrer    = (*linkNode)(nil)
	_ vnode.Xattrer    = (*specialNode)(nil)
	_ vnode.Handle     = (*handle)(nil)
	_ vnode.Seeker     = (*handle)(nil)
	_ vnode.Backed     = (*handle)(nil)
	_ vnode.HandleAttr = (*handle)(nil)
)

// base is what all nodes have.
type base struct {
	tree *Tree
	ino  uint64
	// where is the file's position. In layers that others write to, files move:
	// there all nodes of one file share it, and every look-up brings it up to
	// date, whichever of the nodes the server kept (moved.go).
	where *where
	// seen is what the look-up's stat said, for the first Attr, which nearly
	// always follows at once; nil in volatile layers.
	seen atomic.Pointer[safefs.Stat]
}

func (b *base) init(t *Tree, ino uint64, w *where, seen *safefs.Stat) {
	b.tree, b.ino, b.where = t, ino, w
	b.seen.Store(seen)
}

// at returns where the file is as far as is known now; load it once a method.
func (b *base) at() *position { return b.where.Load() }

// Ino implements vnode.Node.
func (b *base) Ino() uint64 { return b.ino }

// dirNode is a directory: the union of its position's stack.
type dirNode struct{ base }

// leaf is any other file.
type leaf struct{ base }

type (
	fileNode    struct{ leaf }
	linkNode    struct{ leaf }
	specialNode struct{ leaf }
)

// Forget implements vnode.Forgetter: the descriptors are given back.
func (d *dirNode) Forget() { d.tree.cache.drop(d.at().stack) }

// Statfs implements vnode.Statfser with the top layer's filesystem.
func (d *dirNode) Statfs(context.Context) (syscall.Statfs_t, error) {
	var st syscall.Statfs_t
	err := d.at().stack[0].with(func(dir *safefs.Dir) error { return syscall.Fstatfs(dir.Fd(), &st) })
	return st, err
}

// Readlink implements vnode.Symlink.
func (l *linkNode) Readlink(context.Context) (string, error) {
	var target string
	at := l.at().spot
	err := at.place.with(func(dir *safefs.Dir) (err error) {
		target, err = dir.Readlink(at.name)
		return err
	})
	return target, err
}

// with calls f with p's directory and names the layer in its error.
func (p *place) with(f func(dir *safefs.Dir) error) error {
	h, err := p.enter()
	if err != nil {
		return err
	}
	defer p.tree.cache.leave(h)
	return p.layer.explain(f(h.dir))
}

// stale is the error for a file that is not the one it was.
func (s spot) stale() error {
	return fmt.Errorf("layer %s: %q is another file now: %w", s.place.layer.Name, s.name, syscall.ESTALE)
}
