package fsview

import (
	"context"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

// Lookup implements vnode.Directory.
func (n *dirNode) Lookup(ctx context.Context, name string) (vnode.Child, error) {
	p, err := n.fs.place(ctx, n.w)
	if err != nil {
		return vnode.Child{}, err
	}
	e, err := p.lookup(ctx, name)
	if errno.Of(err) == syscall.ENOENT {
		v, _ := n.w.valid()
		return vnode.Child{Entry: v}, nil
	}
	if err != nil {
		return vnode.Child{}, err
	}
	if e.row.Kind == Subtree {
		return p.at(e.row, e.id, e.arg).subtree(ctx)
	}
	return n.fs.child(e.where)
}

// lookup finds name among the fixed entries, then among the others.
func (p place) lookup(ctx context.Context, name string) (entry, error) {
	if k := p.row.child(name); k != nil && !k.dynamic() {
		q := p.at(k, p.id, "")
		if k.has != nil && !k.has(q) {
			return entry{}, q.missing()
		}
		return entry{name, q.where}, nil
	}
	if p.row.find == nil {
		return entry{}, errno.New(errno.ErrUnknown, "there is no %q in %s", clip(name), p.label())
	}
	return p.row.find(ctx, p, name)
}

// ReadDir implements vnode.Directory.
func (n *dirNode) ReadDir(ctx context.Context) ([]vnode.Dirent, error) {
	p, err := n.fs.place(ctx, n.w)
	if err != nil {
		return nil, err
	}
	entries := p.entries(ctx)
	list := make([]vnode.Dirent, len(entries))
	for i, e := range entries {
		fixed := e.row.Kind.isDir() && e.row.Kind != Subtree && !e.row.dynamic()
		list[i] = vnode.Dirent{Name: e.name, Ino: p.inoOf(ctx, e), Type: e.row.typeBits(), Fixed: fixed}
	}
	return list, nil
}

// inoOf is the inode number of an entry. A window on a directory of the host has
// that of its own root.
func (p place) inoOf(ctx context.Context, e entry) uint64 {
	q := p.at(e.row, e.id, e.arg)
	var path string
	switch {
	case e.row.Kind != Subtree:
	case e.row.window != nil:
		path, _ = e.row.window(ctx, q, false) // it was there when it was listed
	case e.row.Listed == Held:
		if id, ok := q.layerID(); ok {
			p.fs.mu.Lock()
			path = p.fs.held[id].path
			p.fs.mu.Unlock()
		}
	}
	if path == "" {
		return e.ino()
	}
	n, err := p.fs.opts.Trees.Window(q.key(), path, nil)
	if err != nil {
		return e.ino()
	}
	if f, ok := n.(vnode.Forgetter); ok {
		defer f.Forget()
	}
	return n.Ino()
}

// ListingHolds implements vnode.Lister. What is listed for other reasons than
// the store's are folders for names, and mounts that are held here.
func (n *dirNode) ListingHolds() bool {
	row := n.w.row
	if row.Valid == vnode.ValidNone || row.symlink != nil {
		return false
	}
	for _, k := range row.kids {
		if k.Listed == Asked && n.fs.opts.ShowDirs {
			return false
		}
		if k.Listed == Held && n.fs.holdsAny() {
			return false
		}
	}
	return true
}

func (r *Row) typeBits() uint32 {
	switch {
	case r.Kind.isDir():
		return syscall.S_IFDIR
	case r.Kind == Link:
		return syscall.S_IFLNK
	}
	return syscall.S_IFREG
}

// entries returns what a listing of p shows.
func (p place) entries(ctx context.Context) []entry {
	var list []entry
	for _, k := range p.row.kids {
		if q := p.at(k, p.id, ""); !k.dynamic() && q.shown(ctx) {
			list = append(list, entry{k.name, q.subtreeWhere()})
		}
	}
	if p.row.list != nil {
		list = append(list, p.row.list(p)...)
	}
	return list
}

// shown tells whether p is listed in its directory.
func (p place) shown(ctx context.Context) bool {
	if p.row.hideable && p.fs.opts.HideTrees || p.row.has != nil && !p.row.has(p) {
		return false
	}
	switch p.row.Listed {
	case Never:
		return false
	case Sized:
		if p.fs.opts.ShowStreams {
			return true
		}
		if p.row.size == nil {
			return false
		}
		_, known := p.row.size(ctx, p)
		return known
	case Held:
		return p.fs.holds(p.tx, p.where)
	case Asked:
		if !p.fs.opts.ShowDirs {
			return false
		}
		path, err := p.row.window(ctx, p, false)
		return path != "" && err == nil
	}
	return true
}

// nlink is 2 and one for each directory that a listing shows.
func (p place) nlink(ctx context.Context) uint32 {
	n := uint32(2)
	for _, k := range p.row.kids {
		if k.Kind.isDir() && !k.dynamic() && p.at(k, p.id, "").shown(ctx) {
			n++
		}
	}
	if p.row.dirs != nil {
		n += uint32(p.row.dirs(p))
	}
	return n
}

// change is the frame of every change of a directory's entries: it refuses
// read-only trees and what the row cannot do, and records errors: with the
// object that name is the entry of, if there is one, else with the directory.
func (n *dirNode) change(ctx context.Context, doing, name string, able bool, fn func(p place) error) error {
	p, err := n.fs.place(ctx, n.w)
	if err != nil {
		return err
	}
	switch werr := n.fs.writable(); {
	case werr != nil:
		err = werr
	case p.row.obj == objDraft && !p.exists():
		err = errno.New(errno.ErrUnknown, "there is no draft %s any more: it was committed or removed meanwhile", clip(p.id))
	case !p.exists():
		err = p.gone()
	case !able:
		err = errno.New(errno.ErrForbidden, "%s %q is not possible in %s: %s", doing, clip(name), p.label(), p.row.advice())
	default:
		err = fn(p)
	}
	if err != nil {
		return n.fs.fail(p.subjectIn(ctx, name), doing+" "+clip(name), err)
	}
	return nil
}

// subjectIn is what an error about an entry of p belongs to.
func (p place) subjectIn(ctx context.Context, name string) where {
	if p.row.Kind != Objects {
		return p.where
	}
	if e, err := p.lookup(ctx, name); err == nil && e.row.obj != objNone {
		return e.where
	}
	return p.where
}

// advice says what can be done in a directory whose entries cannot be changed.
func (r *Row) advice() string {
	switch {
	case r.obj == objDraft:
		return "write the draft's files, and move the draft to commit it"
	case r.obj != objNone:
		return "the files of an object are fixed; rmdir removes the whole object"
	case r.Kind == Objects:
		return "mkdir makes an object here, and rmdir removes one"
	}
	return "its entries are fixed"
}

// Mkdir implements vnode.Mkdirer.
func (n *dirNode) Mkdir(ctx context.Context, name string, _ uint32) (c vnode.Child, err error) {
	err = n.change(ctx, "mkdir", name, n.w.row.mkdir != nil, func(p place) error {
		e, err := p.row.mkdir(ctx, p, name)
		if err != nil {
			return err
		}
		c, err = n.fs.child(e.where)
		if e.row.Kind == Link {
			c.Entry, c.Attr = vnode.ValidNone, vnode.ValidNone
		}
		return err
	})
	return c, err
}

// Rmdir implements vnode.Rmdirer.
func (n *dirNode) Rmdir(ctx context.Context, name string) error {
	return n.change(ctx, "rmdir", name, n.w.row.rmdir != nil, func(p place) error {
		return p.row.rmdir(ctx, p, name)
	})
}

// Unlink implements vnode.Unlinker.
func (n *dirNode) Unlink(ctx context.Context, name string) error {
	return n.change(ctx, "removing", name, n.w.row.unlink != nil, func(p place) error {
		return p.row.unlink(ctx, p, name)
	})
}

// Symlink implements vnode.Symlinker.
func (n *dirNode) Symlink(ctx context.Context, name, target string) (c vnode.Child, err error) {
	err = n.change(ctx, "making the symlink", name, n.w.row.symlink != nil, func(p place) error {
		e, err := p.row.symlink(ctx, p, name, target)
		if err != nil {
			return err
		}
		c, err = n.fs.child(e.where)
		return err
	})
	return c, err
}

// Link implements vnode.Linker: there are no hard links here.
func (n *dirNode) Link(ctx context.Context, name string, _ vnode.Node) (vnode.Child, error) {
	return vnode.Child{}, n.change(ctx, "linking", name, true, func(p place) error {
		return errno.New(errno.ErrForbidden, "%q cannot be a hard link: `ln -s OBJECT by-name/NAME` adds a name", clip(name))
	})
}

// Mknod implements vnode.Mknoder: regular files are made where Create makes
// them, others nowhere.
func (n *dirNode) Mknod(ctx context.Context, name string, mode uint32, _ uint64) (vnode.Child, error) {
	if t := mode & syscall.S_IFMT; t != 0 && t != syscall.S_IFREG {
		return vnode.Child{}, n.change(ctx, "mknod", name, true, func(p place) error {
			return errno.New(errno.ErrForbidden, "%q cannot be a device, a pipe or a socket: the control filesystem holds none", clip(name))
		})
	}
	c, h, err := n.Create(ctx, name, syscall.O_WRONLY, mode)
	if err != nil {
		return vnode.Child{}, err
	}
	return c, h.Release(ctx)
}

// Create implements vnode.Creator.
func (n *dirNode) Create(ctx context.Context, name string, flags int, _ uint32) (c vnode.Child, h vnode.Handle, err error) {
	able := n.w.row.create != nil || n.w.row.child(name) != nil
	err = n.change(ctx, "creating", name, able, func(p place) error {
		if p.row.create == nil {
			// A fixed file that the look-up before this did not find: the object
			// was removed, or removed and made again, or has no such file now.
			return p.at(p.row.child(name), p.id, "").missing()
		}
		e, err := p.row.create(ctx, p, name)
		if err != nil {
			return err
		}
		if h, err = p.at(e.row, e.id, e.arg).open(ctx, flags|syscall.O_CREAT|syscall.O_TRUNC); err != nil {
			return err
		}
		c, err = n.fs.child(e.where)
		// Until it is committed the file is there for this handle only.
		c.Entry, c.Attr = vnode.ValidNone, vnode.ValidNone
		return err
	})
	return c, h, err
}

// Rename implements vnode.Renamer.
func (n *dirNode) Rename(ctx context.Context, name string, newParent vnode.Node, newName string, flags uint32) error {
	return n.change(ctx, "renaming", name, true, func(p place) error {
		to, ok := newParent.(*dirNode)
		switch {
		case !ok || to.fs != n.fs || p.row.rename == nil:
			return errRename(p, name)
		case flags&^unix.RENAME_NOREPLACE != 0:
			return errno.New(errno.ErrBadValue, "renaming %q: entries cannot be exchanged or whited out here", clip(name))
		}
		return p.row.rename(ctx, p, name, to.w, newName)
	})
}

func errRename(p place, name string) error {
	return errno.New(errno.ErrBadValue, "%q in %s cannot be renamed to there: an object is renamed within its directory, a name within by-name/, and a draft is moved into layers/, images/ or containers/", clip(name), p.label())
}
