package fsview

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

// volatileArg is the further name of a subtree of which a part may change; it
// gives such a tree other inode numbers than when all of it stands still, so
// that nothing cached for good outlives the change.
const volatileArg = "volatile"

// subtree answers the look-up of tree/, diff/ or merged/.
func (p place) subtree(ctx context.Context) (vnode.Child, error) {
	if p.row.window != nil {
		n, err := p.userDir(ctx)
		if err != nil {
			return vnode.Child{}, p.fs.fail(p.where, "opening", err)
		}
		return vnode.Child{Node: n}, nil
	}
	if p.row.Listed == Held {
		n, err := p.merged(ctx)
		if err != nil {
			return vnode.Child{}, p.fs.fail(p.where, "mounting", err)
		}
		return vnode.Child{Node: n}, nil
	}
	if p.fs.opts.Trees == nil {
		return vnode.Child{}, errno.New(errno.ErrNotSupported, "%s cannot be shown: this program serves no trees", p.label())
	}
	p.where = p.subtreeWhere()
	n := &treeNode{fs: p.fs, w: p.where}
	attr := vnode.ValidStore
	if p.arg == volatileArg {
		attr = vnode.ValidNone
	}
	return vnode.Child{Node: n, Entry: vnode.ValidStore, Attr: attr}, nil
}

// subtreeWhere completes the place of a tree/ or diff/; others it leaves.
func (p place) subtreeWhere() where {
	w := p.where
	if p.row.Kind != Subtree || p.row.Listed == Held || p.row.window != nil {
		return w
	}
	w.arg = ""
	id, ok := p.layerID()
	if !ok {
		return w
	}
	for l := range p.tx.Down(id) {
		if p.mayChange(l) {
			w.arg = volatileArg
		}
		if p.row.own || w.arg != "" {
			break
		}
	}
	return w
}

// mayChange tells whether a layer's content may change: it is mounted, or
// nothing stops it from being mounted for writing.
func (p place) mayChange(l *store.Layer) bool {
	if m, ok := p.tx.Mountpoint(l.ID); ok && m.Count > 0 {
		return true
	}
	return !readOnlyLayer(l) && len(p.tx.Children(l.ID)) == 0 && len(p.tx.ImagesOn(l.ID)) == 0 && len(p.tx.MappedBy(l.ID)) == 0
}

// treeLayers returns the directories of the place's layer, top first.
func (p place) treeLayers() ([]TreeLayer, error) {
	id, ok := p.layerID()
	if !ok {
		return nil, p.missing()
	}
	d := p.fs.store.Driver()
	if d == nil {
		return nil, errno.New(errno.ErrNotSupported, "the store was opened without a driver, so that content cannot be shown")
	}
	dirs, err := d.Dirs(id)
	switch {
	case errors.Is(err, errno.ErrUnknown):
		return nil, errno.New(errno.ErrDamaged, "%s cannot be shown, since a directory of layer %s is missing: %w", p.label(), short(id), err)
	case err != nil:
		return nil, fmt.Errorf("finding the content of layer %s: %w", short(id), err)
	}
	chain := p.tx.Chain(id)
	if len(dirs) == 0 || len(chain) == 0 {
		return nil, errno.New(errno.ErrDamaged, "layer %s has no directory", short(id))
	}
	if p.row.own {
		dirs = dirs[:1]
	}
	list := make([]TreeLayer, len(dirs))
	for i, dir := range dirs {
		// A driver with whole copies has one directory for the whole chain.
		l := chain[min(i, len(chain)-1)]
		list[i] = TreeLayer{ID: l.ID, Dir: dir, Volatile: p.mayChange(l), Owners: p.owners(p.tx.OwnerMaps(l))}
	}
	return list, nil
}

// owners are the maps for what is shown as containers see it, nil for what is
// shown as it is.
func (p place) owners(m idmap.Maps) *idmap.Maps {
	if !p.fs.opts.ContainerOwners {
		return nil
	}
	return &m
}

// treeNode is the root of a tree/ or diff/. The union behind it is made when
// it is first asked for something, and again if it is asked after Forget. Its
// inode number is that of the control tree, so that listings agree with it.
type treeNode struct {
	fs *FS
	w  where

	mu    sync.Mutex // guards inner; held while the union is made
	inner vnode.Directory
}

var (
	_ vnode.Directory   = (*treeNode)(nil)
	_ vnode.Forgetter   = (*treeNode)(nil)
	_ vnode.OwnerShower = (*treeNode)(nil)
	_ vnode.Xattrer     = (*treeNode)(nil)
	_ vnode.Statfser    = (*treeNode)(nil)
	_ vnode.Mkdirer     = (*treeNode)(nil)
	_ vnode.Creator     = (*treeNode)(nil)
	_ vnode.Unlinker    = (*treeNode)(nil)
	_ vnode.Rmdirer     = (*treeNode)(nil)
	_ vnode.Renamer     = (*treeNode)(nil)
	_ vnode.Symlinker   = (*treeNode)(nil)
	_ vnode.Mknoder     = (*treeNode)(nil)
	_ vnode.Linker      = (*treeNode)(nil)
)

func (n *treeNode) open(ctx context.Context) (vnode.Directory, error) {
	p, err := n.fs.place(ctx, n.w)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.inner != nil {
		return n.inner, nil
	}
	layers, err := p.treeLayers()
	if err != nil {
		return nil, err
	}
	root, err := n.fs.opts.Trees.Union(n.w.key(), layers)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", p.label(), err)
	}
	dir, ok := root.(vnode.Directory)
	if !ok {
		return nil, errno.New(errno.ErrNotDir, "%s: the root of the tree is not a directory", p.label())
	}
	n.inner = dir
	return dir, nil
}

// Ino implements vnode.Node.
func (n *treeNode) Ino() uint64 { return n.w.ino() }

// Attr implements vnode.Node. The root of a tree that cannot be opened, since
// the layer is damaged, can be looked at all the same, so that listing the
// object works; listing the tree says what is wrong.
func (n *treeNode) Attr(ctx context.Context) (vnode.Attr, error) {
	d, err := n.open(ctx)
	if err != nil {
		p, perr := n.fs.place(ctx, n.w)
		if perr != nil {
			return vnode.Attr{}, perr
		}
		return p.attr(ctx)
	}
	a, err := d.Attr(ctx)
	a.Ino = n.Ino()
	return a, err
}

// ShowOwner implements vnode.OwnerShower.
func (n *treeNode) ShowOwner(ctx context.Context, uid, gid uint32) (uint32, uint32, bool) {
	d, err := n.open(ctx)
	if o, ok := d.(vnode.OwnerShower); ok && err == nil {
		return o.ShowOwner(ctx, uid, gid)
	}
	return uid, gid, false
}

// ShowIDs implements vnode.OwnerShower. Of a root that nobody opened no ACL was
// read either.
func (n *treeNode) ShowIDs(uid, gid uint32) (uint32, uint32, bool) {
	n.mu.Lock()
	d := n.inner
	n.mu.Unlock()
	if o, ok := d.(vnode.OwnerShower); ok {
		return o.ShowIDs(uid, gid)
	}
	return uid, gid, false
}

// Lookup implements vnode.Directory.
func (n *treeNode) Lookup(ctx context.Context, name string) (vnode.Child, error) {
	d, err := n.open(ctx)
	if err != nil {
		return vnode.Child{}, err
	}
	return d.Lookup(ctx, name)
}

// ReadDir implements vnode.Directory.
func (n *treeNode) ReadDir(ctx context.Context) ([]vnode.Dirent, error) {
	d, err := n.open(ctx)
	if err != nil {
		return nil, err
	}
	return d.ReadDir(ctx)
}

// Getxattr implements vnode.Xattrer.
func (n *treeNode) Getxattr(ctx context.Context, name string) ([]byte, error) {
	d, err := n.open(ctx)
	if err != nil {
		return nil, err
	}
	if x, ok := d.(vnode.Xattrer); ok {
		return x.Getxattr(ctx, name)
	}
	return nil, syscall.ENODATA
}

// Listxattr implements vnode.Xattrer.
func (n *treeNode) Listxattr(ctx context.Context) ([]string, error) {
	d, err := n.open(ctx)
	if err != nil {
		return nil, err
	}
	if x, ok := d.(vnode.Xattrer); ok {
		return x.Listxattr(ctx)
	}
	return nil, nil
}

// Statfs implements vnode.Statfser.
func (n *treeNode) Statfs(ctx context.Context) (syscall.Statfs_t, error) {
	d, err := n.open(ctx)
	if err != nil {
		return syscall.Statfs_t{}, err
	}
	if s, ok := d.(vnode.Statfser); ok {
		return s.Statfs(ctx)
	}
	return syscall.Statfs_t{}, syscall.EOPNOTSUPP
}

// Forget implements vnode.Forgetter.
func (n *treeNode) Forget() {
	n.mu.Lock()
	inner := n.inner
	n.inner = nil
	n.mu.Unlock()
	if f, ok := inner.(vnode.Forgetter); ok {
		f.Forget()
	}
}

// refuse answers every change.
func (n *treeNode) refuse(name string) error {
	return n.fs.fail(n.w, "changing "+clip(name), errno.New(errno.ErrReadOnly,
		"%s cannot be changed: it shows stored layers; write below merged/ of a container, or stream an archive into diff.tar", n.fs.pathNow(n.w)))
}

// Mkdir implements vnode.Mkdirer.
func (n *treeNode) Mkdir(_ context.Context, name string, _ uint32) (vnode.Child, error) {
	return vnode.Child{}, n.refuse(name)
}

// Create implements vnode.Creator.
func (n *treeNode) Create(_ context.Context, name string, _ int, _ uint32) (vnode.Child, vnode.Handle, error) {
	return vnode.Child{}, nil, n.refuse(name)
}

// Mknod implements vnode.Mknoder.
func (n *treeNode) Mknod(_ context.Context, name string, _ uint32, _ uint64) (vnode.Child, error) {
	return vnode.Child{}, n.refuse(name)
}

// Symlink implements vnode.Symlinker.
func (n *treeNode) Symlink(_ context.Context, name, _ string) (vnode.Child, error) {
	return vnode.Child{}, n.refuse(name)
}

// Link implements vnode.Linker.
func (n *treeNode) Link(_ context.Context, name string, _ vnode.Node) (vnode.Child, error) {
	return vnode.Child{}, n.refuse(name)
}

// Unlink implements vnode.Unlinker.
func (n *treeNode) Unlink(_ context.Context, name string) error { return n.refuse(name) }

// Rmdir implements vnode.Rmdirer.
func (n *treeNode) Rmdir(_ context.Context, name string) error { return n.refuse(name) }

// Rename implements vnode.Renamer.
func (n *treeNode) Rename(_ context.Context, name string, _ vnode.Node, _ string, _ uint32) error {
	return n.refuse(name)
}
