package fsview

import (
	"context"
	"strings"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

// The nodes' abilities, as servers find them.
var (
	_ vnode.Lister      = (*dirNode)(nil)
	_ vnode.Snapshotter = (*dirNode)(nil)
	_ vnode.Mkdirer     = (*dirNode)(nil)
	_ vnode.Rmdirer     = (*dirNode)(nil)
	_ vnode.Unlinker    = (*dirNode)(nil)
	_ vnode.Symlinker   = (*dirNode)(nil)
	_ vnode.Linker      = (*dirNode)(nil)
	_ vnode.Mknoder     = (*dirNode)(nil)
	_ vnode.Creator     = (*dirNode)(nil)
	_ vnode.Renamer     = (*dirNode)(nil)
	_ vnode.Setattrer   = (*dirNode)(nil)
	_ vnode.Xattrer     = (*dirNode)(nil)
	_ vnode.Opener      = (*fileNode)(nil)
	_ vnode.Setattrer   = (*fileNode)(nil)
	_ vnode.Xattrer     = (*fileNode)(nil)
	_ vnode.Symlink     = (*linkNode)(nil)
)

// ErrorXattr is the extended attribute that holds the sentence of the last
// error of a file's object; that of the root, the last error of all.
const ErrorXattr = "user.plyfs.error"

// baseNode is what all nodes of the control tree share. It has no state.
type baseNode struct {
	fs *FS
	w  where
}

type dirNode struct{ baseNode }

type fileNode struct{ baseNode }

type linkNode struct{ baseNode }

// node returns the node of w, which is no Subtree.
func (f *FS) node(w where) vnode.Node {
	b := baseNode{f, w}
	switch {
	case w.row.Kind.isDir():
		return &dirNode{b}
	case w.row.Kind == Link:
		return &linkNode{b}
	}
	return &fileNode{b}
}

// Ino implements vnode.Node.
func (n *baseNode) Ino() uint64 { return n.w.ino() }

// Attr implements vnode.Node.
func (n *baseNode) Attr(ctx context.Context) (vnode.Attr, error) {
	p, err := n.fs.place(ctx, n.w)
	if err != nil {
		return vnode.Attr{}, err
	}
	return p.attr(ctx)
}

// attr returns the attributes of p.
func (p place) attr(ctx context.Context) (vnode.Attr, error) {
	a := vnode.Attr{
		Ino: p.ino(), Mode: p.mode(), Nlink: 1,
		UID: p.fs.opts.UID, GID: p.fs.opts.GID,
	}
	a.Mtime, a.Btime = p.times()
	a.Atime, a.Ctime = a.Mtime, a.Mtime
	switch {
	case p.row.Kind.isDir():
		a.Nlink = p.nlink(ctx)
		return a, nil
	case p.row.Kind == Link:
		target, ok := p.row.target(p)
		if !ok {
			return a, p.missing()
		}
		a.Size = uint64(len(target))
		return a, nil
	}
	size, err := p.fileSize(ctx)
	if err != nil {
		return a, err
	}
	a.Size = uint64(size)
	a.Blocks = (a.Size + 511) / 512
	return a, nil
}

func (p place) fileSize(ctx context.Context) (int64, error) {
	if p.row.size != nil {
		size, _ := p.row.size(ctx, p)
		return size, nil
	}
	if p.row.get == nil {
		return 0, nil
	}
	v, err := p.row.get(p)
	return int64(len(v)), err
}

func (p place) missing() error {
	return errno.New(errno.ErrUnknown, "there is no %s here", p.row.name)
}

// mode returns the type and permission bits; write bits say what works.
func (p place) mode() uint32 {
	perm := p.row.Mode
	if p.row.Kind != Link {
		perm &^= p.fs.opts.Umask
	}
	if p.row.exports && p.fs.opts.Delegated {
		perm &^= 0o444
	}
	if p.fs.writable() != nil || p.fixed() {
		perm &^= 0o222
	}
	switch {
	case p.row.Kind.isDir():
		return syscall.S_IFDIR | perm
	case p.row.Kind == Link:
		return syscall.S_IFLNK | perm
	}
	return syscall.S_IFREG | perm
}

// fixed tells whether the file cannot be written because its object comes from
// a read-only store. The names of an image can: the store then keeps a record of
// its own, as for mv and ln.
func (p place) fixed() bool {
	return p.readOnlyObject() && (p.row.obj != objImage || !p.row.adopts)
}

// readOnlyObject tells whether the object comes from a read-only store.
func (p place) readOnlyObject() bool {
	switch p.row.obj {
	case objLayer:
		l := p.tx.LayerByID(p.id)
		return l != nil && l.ReadOnly
	case objImage:
		i := p.tx.ImageByID(p.id)
		return i != nil && i.ReadOnly
	}
	return false
}

// times returns when the value, or a directory's set, last changed, and when
// the file came to be.
func (p place) times() (mtime, btime time.Time) {
	kind, ok := p.row.obj.kind()
	if !ok {
		if p.row.mtime != nil {
			return p.row.mtime(p), p.fs.born
		}
		return p.fs.born, p.fs.born
	}
	btime = p.created()
	switch {
	case p.row.born:
		return btime, btime
	case p.row.mtime != nil:
		return p.row.mtime(p), btime
	}
	mtime = p.tx.ModTime(kind, p.id)
	if mtime.IsZero() {
		mtime = btime
	}
	return mtime, btime
}

func (p place) created() time.Time {
	switch p.row.obj {
	case objLayer:
		if l := p.tx.LayerByID(p.id); l != nil {
			return l.Created
		}
	case objImage:
		if i := p.tx.ImageByID(p.id); i != nil {
			return i.Created
		}
	case objContainer:
		if c := p.tx.ContainerByID(p.id); c != nil {
			return c.Created
		}
	case objDraft:
		return p.draftTime()
	}
	return p.fs.born
}

// valid returns for how long the entry and the attributes may be believed. An
// object can go, so nothing of one is believed for longer than a generation.
func (p where) valid() (entry, attr vnode.Validity) {
	v := p.row.Valid
	if p.row.obj != objNone && v == vnode.ValidForever {
		v = vnode.ValidStore
	}
	return v, v
}

// child wraps w for a server.
func (f *FS) child(w where) (vnode.Child, error) {
	if w.row.Kind == Subtree {
		return vnode.Child{}, errno.New(errno.ErrBadValue, "a subtree is not made here")
	}
	e, a := w.valid()
	return vnode.Child{Node: f.node(w), Entry: e, Attr: a}, nil
}

// Readlink implements vnode.Symlink.
func (n *linkNode) Readlink(ctx context.Context) (string, error) {
	p, err := n.fs.place(ctx, n.w)
	if err != nil {
		return "", err
	}
	target, ok := p.row.target(p)
	if !ok {
		return "", p.missing()
	}
	return target, nil
}

// Getxattr answers user.plyfs.error. ACLs, capabilities and security labels
// are not supported, rather than absent: programs like ls then ask once and not
// for every file, which is most of the time of `ls -l`.
func (n *baseNode) Getxattr(_ context.Context, name string) ([]byte, error) {
	switch {
	case strings.HasPrefix(name, "system.") || strings.HasPrefix(name, "security."):
		return nil, syscall.EOPNOTSUPP
	case name != ErrorXattr:
		return nil, syscall.ENODATA
	}
	var text string
	if n.w.row.parent == nil {
		text = n.fs.errs.last()
	} else {
		text = n.fs.errs.of(subjectOf(n.w))
	}
	if text == "" {
		return nil, syscall.ENODATA
	}
	return []byte(text), nil
}

// Listxattr lists nothing, so that copies of the files stay equal.
func (n *baseNode) Listxattr(context.Context) ([]string, error) { return nil, nil }

// Setattr implements vnode.Setattrer: the attributes of control files follow
// from the store. Times are taken without effect, so that touch and cp -p
// work; what would change owner or mode is refused, but of an archive on its way
// in, which copies give those of its source; a size sets the value.
func (n *baseNode) Setattr(ctx context.Context, s vnode.SetAttr) (vnode.Attr, error) {
	p, err := n.fs.place(ctx, n.w)
	if err != nil {
		return vnode.Attr{}, err
	}
	if err := p.checkSetattr(s); err != nil {
		return vnode.Attr{}, n.fs.fail(n.w, "setting attributes", err)
	}
	if s.Size != nil {
		if err := n.fs.truncate(ctx, p, *s.Size); err != nil {
			return vnode.Attr{}, n.fs.fail(n.w, "truncating", err)
		}
	}
	return n.Attr(ctx)
}

func (p place) checkSetattr(s vnode.SetAttr) error {
	if err := p.fs.writable(); err != nil {
		return err
	}
	passing := p.row.take != nil // an archive on its way in
	switch {
	case s.Size != nil && p.row.Kind.isDir():
		return errno.New(errno.ErrIsDir, "%s is a directory", p.label())
	case passing:
		return nil
	case s.Mode != nil && *s.Mode&0o7777 != p.mode()&0o7777:
		return errno.New(errno.ErrForbidden, "the mode of %s says what works with it and cannot be changed", p.label())
	case s.UID != nil && *s.UID != p.fs.opts.UID, s.GID != nil && *s.GID != p.fs.opts.GID:
		return errno.New(errno.ErrForbidden, "%s belongs to whoever mounted the control filesystem; its owner cannot be changed", p.label())
	}
	return nil
}

// label is the path of p as sentences quote it.
func (p place) label() string { return p.fs.pathOf(p.tx, p.where) }

// object is label for the directory of the object that the place belongs to.
func (p place) object() string {
	w := p.where
	for w.row.parent != nil && w.row.parent.obj == w.row.obj {
		w.row = w.row.parent
	}
	w.arg = ""
	return p.fs.pathOf(p.tx, w)
}
