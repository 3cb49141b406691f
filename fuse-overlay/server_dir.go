package fuseoverlay

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/plyfs/plyfs/internal/safefs"
)

// caller is who asks for a new file.
func (r *raw) caller(h *fuse.InHeader, umask uint32) caller {
	uid, gid := r.edge.keep(h.Uid, h.Gid)
	return caller{uid, gid, umask}
}

// made answers a request that makes something, by mk.
func (r *raw) made(ctx context.Context, op string, out *fuse.EntryOut, mk func(context.Context) (*node, safefs.Stat, error)) fuse.Status {
	n, st, err := mk(ctx)
	if r.o.madeRoom(ctx, err) {
		n, st, err = mk(ctx)
	}
	if err != nil {
		return r.status(op, err)
	}
	r.fillEntry(out, n, &st)
	return fuse.OK
}

// change answers a request that changes something, by f.
func (r *raw) change(ctx context.Context, op string, f func(context.Context) error) fuse.Status {
	err := f(ctx)
	if r.o.madeRoom(ctx, err) {
		err = f(ctx)
	}
	return r.status(op, err)
}

// Mkdir makes a directory.
func (r *raw) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	dir, s := r.node(in.NodeId)
	if !s.Ok() {
		return s
	}
	return r.made(request(cancel, &in.InHeader), "mkdir", out, func(ctx context.Context) (*node, safefs.Stat, error) {
		return r.o.mkdir(ctx, dir, name, in.Mode, r.caller(&in.InHeader, in.Umask))
	})
}

// Mknod makes any other file.
func (r *raw) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	dir, s := r.node(in.NodeId)
	if !s.Ok() {
		return s
	}
	return r.made(request(cancel, &in.InHeader), "mknod", out, func(ctx context.Context) (*node, safefs.Stat, error) {
		return r.o.mknod(ctx, dir, name, in.Mode, in.Rdev, r.caller(&in.InHeader, in.Umask))
	})
}

// Symlink makes a symlink.
func (r *raw) Symlink(cancel <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	dir, s := r.node(h.NodeId)
	if !s.Ok() {
		return s
	}
	return r.made(request(cancel, h), "symlink", out, func(ctx context.Context) (*node, safefs.Stat, error) {
		return r.o.symlink(ctx, dir, name, target, r.caller(h, 0))
	})
}

// Link makes a hard link.
func (r *raw) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	dir, s := r.node(in.NodeId)
	if !s.Ok() {
		return s
	}
	n, s := r.node(in.Oldnodeid)
	if !s.Ok() {
		return s
	}
	return r.made(request(cancel, &in.InHeader), "link", out, func(ctx context.Context) (*node, safefs.Stat, error) {
		st, err := r.o.link(ctx, n, dir, name)
		return n, st, err
	})
}

// Tmpfile makes a file without a name.
func (r *raw) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	dir, s := r.node(in.NodeId)
	if !s.Ok() {
		return s
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	return r.made(request(cancel, &in.InHeader), "tmpfile", &out.EntryOut, func(ctx context.Context) (*node, safefs.Stat, error) {
		n, st, err := r.o.unnamed(ctx, dir, in.Mode, r.caller(&in.InHeader, in.Umask))
		if err == nil && r.o.pass != nil {
			err = r.passOpen(ctx, n, in.Flags, false, &out.OpenOut)
		}
		return n, st, err
	})
}

// Unlink removes a name.
func (r *raw) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	dir, s := r.node(h.NodeId)
	if !s.Ok() {
		return s
	}
	return r.change(request(cancel, h), "unlink", func(ctx context.Context) error { return r.o.unlink(ctx, dir, name) })
}

// Rmdir removes a directory.
func (r *raw) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	dir, s := r.node(h.NodeId)
	if !s.Ok() {
		return s
	}
	return r.change(request(cancel, h), "rmdir", func(ctx context.Context) error { return r.o.rmdir(ctx, dir, name) })
}

// Rename moves a name.
func (r *raw) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	from, s := r.node(in.NodeId)
	if !s.Ok() {
		return s
	}
	to, s := r.node(in.Newdir)
	if !s.Ok() {
		return s
	}
	return r.change(request(cancel, &in.InHeader), "rename", func(ctx context.Context) error {
		return r.o.rename(ctx, from, oldName, to, newName, in.Flags)
	})
}

// batch is how many entries are taken from the index at a time.
const batch = 128

// ReadDir lists names.
func (r *raw) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.readDir(cancel, in, out, false)
}

// ReadDirPlus lists names with attributes.
func (r *raw) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.readDir(cancel, in, out, true)
}

func (r *raw) readDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList, plus bool) fuse.Status {
	dir, s := r.node(in.NodeId)
	if !s.Ok() {
		return s
	}
	if !dir.isDir() {
		return fuse.ENOTDIR
	}
	ctx := request(cancel, &in.InHeader)
	off := in.Offset
	if off == 0 {
		defer r.o.stageListed(ctx, dir)
	}
	how := namesOnly
	if plus {
		how = r.attributes(dir, off)
	}
	for ; off < firstCookie-1; off++ {
		if !r.dots(dir, off, out, plus) {
			return fuse.OK
		}
	}
	var buf [batch]entry
	for {
		k, err := r.o.children(ctx, dir, off, buf[:])
		if err == nil && k == 0 {
			r.o.wasListed(dir)
		}
		if err != nil || k == 0 {
			return r.status("readdir", err)
		}
		for i := range buf[:k] {
			e := &buf[i]
			full, err := r.addEntry(ctx, dir, e, out, how)
			if full || err != nil {
				return r.status("readdir", err)
			}
			off = e.cookie
		}
	}
}

// detail is what a listing says of an entry.
type detail uint8

const (
	namesOnly detail = iota // READDIR
	// withoutAttributes: the same, in the form of READDIRPLUS.
	withoutAttributes
	withAttributes
)

// first is how many entries of a directory are listed with their attributes
// whatever is done with them.
const first = 1024

// attributes decides what READDIRPLUS from off on is answered with. The kernel,
// left to decide, asks for attributes with the first part of a listing only and
// then looks up each name of a part that the program looks at, or does not; a
// look-up costs ten times what an entry's attributes do. So the first parts have
// them; further ones when a name that had none was looked up since.
func (r *raw) attributes(dir *node, off uint64) detail {
	switch {
	case off == 0:
		dir.dir.wanted.Store(false)
		return withAttributes
	case off < first || dir.dir.wanted.Load():
		return withAttributes
	}
	return withoutAttributes
}

// dots adds "." at offset 0 and ".." at 1.
func (r *raw) dots(dir *node, off uint64, out *fuse.DirEntryList, plus bool) bool {
	e := fuse.DirEntry{Name: ".", Ino: r.edge.ino(dir.ino), Mode: syscall.S_IFDIR, Off: off + 1}
	if off == 1 {
		e.Name = ".."
		if up := r.o.homeOf(dir).dir; up != nil {
			e.Ino = r.edge.ino(up.ino)
		}
	}
	if plus {
		return out.AddDirLookupEntry(e) != nil
	}
	return out.AddDirEntry(e)
}

// addEntry adds one name; full says that it does not fit.
func (r *raw) addEntry(ctx context.Context, dir *node, e *entry, out *fuse.DirEntryList, how detail) (full bool, err error) {
	d := fuse.DirEntry{Name: e.name, Ino: e.ino, Mode: e.typ(), Off: e.cookie}
	if how != withAttributes {
		if d.Ino == 0 {
			if d.Ino, err = r.o.numberOf(ctx, dir, e.name); err != nil {
				r.o.log.Debugf("number of %q: %v", e.name, err)
				err = nil
			}
		}
		d.Ino = r.edge.ino(d.Ino)
		if how == withoutAttributes {
			return out.AddDirLookupEntry(d) == nil, err
		}
		return !out.AddDirEntry(d), err
	}
	n, st, err := r.o.lookup(ctx, dir, e.name)
	if err != nil || n == nil { // damaged, or gone since: listed as it was
		d.Ino = r.edge.ino(d.Ino)
		return out.AddDirLookupEntry(d) == nil, nil
	}
	d.Ino, d.Mode = r.edge.ino(n.number()), n.typ
	eo := out.AddDirLookupEntry(d)
	if eo == nil {
		r.o.forget(n, 1)
		return true, nil
	}
	r.fillEntry(eo, n, &st)
	return false, nil
}
