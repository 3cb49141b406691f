package fusefs

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

// nameMax is the longest name in bytes, NAME_MAX of Linux.
const nameMax = 255

func checkName(name string) error {
	if len(name) > nameMax {
		return errno.New(errno.ErrNameTooLong, "the name %.40s… is longer than %d bytes", name, nameMax)
	}
	return nil
}

// dirOf returns the directory of a request that looks for or changes name.
func (r *raw) dirOf(id uint64, name string) (*inode, vnode.Directory, error) {
	in, st := r.inode(id)
	if !st.Ok() {
		return nil, nil, syscall.Errno(st)
	}
	d, ok := in.node.(vnode.Directory)
	if !ok {
		return nil, nil, syscall.ENOTDIR
	}
	return in, d, checkName(name)
}

func refused(name string) error {
	return errno.New(errno.ErrReadOnly, "%s: entries cannot be made, moved or removed here", name)
}

// Lookup finds one name.
func (r *raw) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	begin := r.s.epoch.Load()
	in, d, err := r.dirOf(h.NodeId, name)
	if err != nil {
		return r.status("lookup", err)
	}
	ctx, answered := r.patient(cancel, h)
	defer answered()
	if err := r.s.may(ctx, in, unix.X_OK); err != nil {
		return r.status("lookup", err)
	}
	c, err := d.Lookup(ctx, name)
	if err != nil {
		return r.status("lookup", err)
	}
	if c.Node == nil {
		out.EntryValid = r.s.seconds(c.Entry, begin)
		if out.EntryValid == 0 {
			return fuse.ENOENT
		}
		return fuse.OK // node ID 0: a negative entry
	}
	return r.status("lookup", r.s.entry(ctx, out, c, in, begin, false))
}

// Forget takes look-ups back; BATCH_FORGET arrives as several of these.
func (r *raw) Forget(id, n uint64) { r.s.table.forget(id, n) }

// OpenDir checks, and then has the kernel ask no more, if it knows how: it opens
// directories by itself from then on, and READDIR checks.
func (r *raw) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	n, _, err := r.dirOf(in.NodeId, "")
	if err == nil {
		err = r.s.may(r.request(cancel, &in.InHeader), n, unix.R_OK)
	}
	switch {
	case err != nil:
		return r.status("opendir", err)
	case r.s.noOpenDir:
		return fuse.ENOSYS
	}
	return fuse.OK
}

// ReleaseDir has nothing to release.
func (r *raw) ReleaseDir(*fuse.ReleaseIn) {}

// FsyncDir makes a directory's entries durable where its node can.
func (r *raw) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n, st := r.inode(in.NodeId)
	if !st.Ok() {
		return st
	}
	if f, ok := n.node.(vnode.Fsyncer); ok {
		return r.status("fsyncdir", f.Fsync(r.request(cancel, &in.InHeader), in.FsyncFlags&1 != 0))
	}
	return fuse.OK
}

// ReadDir lists names only.
func (r *raw) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.readDir(cancel, in, out, false)
}

// ReadDirPlus lists names with attributes where those hold for good.
func (r *raw) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.readDir(cancel, in, out, true)
}

func (r *raw) readDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList, plus bool) fuse.Status {
	n, d, err := r.dirOf(in.NodeId, "")
	ctx := r.request(cancel, &in.InHeader)
	if err == nil {
		err = r.s.may(ctx, n, unix.R_OK)
	}
	if err != nil {
		return r.status("readdir", err)
	}
	lister, _ := d.(vnode.Lister)
	if atEnd(in.Offset) {
		if lister == nil || !r.s.mayCopy(ctx, n, lister, in.Pid, in.Offset) {
			withhold(out, plus)
		}
		return fuse.OK
	}
	return r.status("readdir", r.readList(ctx, in, &dirWriter{r: r, ctx: ctx, dir: d, in: n, out: out, plus: plus, lister: lister != nil}))
}

// readList fills an answer that is not the end of a list.
func (r *raw) readList(ctx context.Context, in *fuse.ReadIn, w *dirWriter) error {
	w.begin = r.s.epoch.Load()
	gen := r.s.generation()
	if d, ok := w.dir.(vnode.Snapshotter); ok {
		ctx = d.Snapshot(ctx)
		w.ctx = ctx
	}
	l, fresh, err := r.s.listing(ctx, gen, w.in, w.dir, in.Offset, in.Pid)
	if err != nil {
		return err
	}
	first, ok := 0, true
	if in.Offset != 0 {
		if first, ok = l.behind(in.Offset); !ok {
			first, ok = r.s.shelf.after(w.in, l, in.Offset)
		}
	}
	if !ok {
		return fmt.Errorf("the entry that was read last is gone, and so is the list that it was in: read the directory again from its beginning: %w", syscall.ESTALE)
	}
	w.list = l
	next := first
	for next < len(l.entries) && w.add(next) {
		next++
	}
	whole := in.Offset == 0 && next == len(l.entries)
	if fresh {
		r.s.shelf.put(w.in, l, whole)
	}
	if first == next {
		withhold(w.out, w.plus)
	}
	if w.lister && whole && l.size() <= keptSize {
		r.s.table.wholeList(w.in, in.Pid, w.informed)
	}
	return nil
}

// listing returns the list that a place belongs to, or one that can take its
// stead, and whether it was read for this, in generation gen or later.
func (s *Server) listing(ctx context.Context, gen uint64, n *inode, d vnode.Directory, place uint64, thread uint32) (l *listing, fresh bool, err error) {
	_, lister := d.(vnode.Lister)
	if place != 0 {
		if l := s.shelf.get(n, place); l != nil {
			if !l.hasTag(place) { // of a list in two parts no copy is made
				return &listing{l.entries, s.tag(rand.Uint64(), 0)}, false, nil
			}
			return l, false, nil
		}
	}
	entries, err := d.ReadDir(ctx)
	if err != nil {
		return nil, false, err
	}
	l = arrange(n, s.table.parentOf(n), entries)
	switch {
	case !lister:
	case place == 0:
		l.tag = s.beginList(n, thread, s.digest(entries), gen)
	default:
		l.tag = s.tag(rand.Uint64(), 0)
	}
	return l, true, nil
}

// dirWriter fills one answer to READDIR or READDIRPLUS.
type dirWriter struct {
	r      *raw
	ctx    context.Context
	dir    vnode.Directory
	in     *inode
	out    *fuse.DirEntryList
	list   *listing
	plus   bool
	lister bool   // only entries that are fixed get attributes
	plain  bool   // a child was not ValidForever: no attributes
	begin  uint64 // the epoch before the list was read

	informed bool // attributes of an entry were told
}

// add writes entry i. It reports false when the answer is full.
func (w *dirWriter) add(i int) bool {
	d := &w.list.entries[i]
	e := fuse.DirEntry{Off: w.list.place(i), Mode: d.Type, Name: d.Name, Ino: d.Ino}
	if !w.plus {
		return w.out.AddDirEntry(e)
	}
	out := w.out.AddDirLookupEntry(e)
	if out == nil {
		return false
	}
	if i >= 2 && !w.plain && (d.Fixed || !w.lister) {
		w.attributes(e.Name, out)
	}
	return true
}

// attributes fills the look-up half of an entry, or leaves it zero (no
// look-up) and switches the stream to names only when the child may change.
func (w *dirWriter) attributes(name string, out *fuse.EntryOut) {
	s := w.r.s
	if s.may(w.ctx, w.in, unix.X_OK) != nil {
		return
	}
	c, err := w.dir.Lookup(w.ctx, name)
	if err != nil || c.Node == nil {
		return
	}
	if !w.lister && (c.Entry != vnode.ValidForever || c.Attr != vnode.ValidForever) {
		w.plain = true
		s.table.drop(c.Node)
		return
	}
	if err := s.entry(w.ctx, out, c, w.in, w.begin, false); err != nil {
		*out = fuse.EntryOut{}
		return
	}
	w.informed = true
}

// made answers a request that created an entry.
func (r *raw) made(ctx context.Context, op string, out *fuse.EntryOut, c vnode.Child, err error, parent *inode) fuse.Status {
	r.s.changed(ctx, parent)
	if err != nil {
		return r.status(op, err)
	}
	return r.status(op, r.s.entry(ctx, out, c, parent, r.s.epoch.Load(), true))
}

// enter is the beginning of every request that changes the entries of a
// directory.
func (r *raw) enter(cancel <-chan struct{}, h *fuse.InHeader, name string) (context.Context, *inode, error) {
	in, _, err := r.dirOf(h.NodeId, name)
	if err != nil {
		return nil, nil, err
	}
	ctx := r.request(cancel, h)
	return ctx, in, r.s.may(ctx, in, unix.W_OK|unix.X_OK)
}

// Unmasked is a directory that may decide modes itself (by a default ACL): when
// KeepsMode is true the caller's umask is not applied to what is made in it.
type Unmasked interface {
	KeepsMode(ctx context.Context) bool
}

// masked applies the caller's umask, which the kernel leaves to us.
func masked(ctx context.Context, dir *inode, mode, umask uint32) uint32 {
	if u, ok := dir.node.(Unmasked); ok && u.KeepsMode(ctx) {
		return mode
	}
	return mode &^ (umask & 0o777)
}

// Mkdir makes a directory. Where the node left a symlink instead, the answer
// is a directory that nobody finds again, as the kernel accepts nothing else.
func (r *raw) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	ctx, p, err := r.enter(cancel, &in.InHeader, name)
	if err != nil {
		return r.status("mkdir", err)
	}
	m, ok := p.node.(vnode.Mkdirer)
	if !ok {
		return r.status("mkdir", refused(name))
	}
	c, err := m.Mkdir(ctx, name, masked(ctx, p, in.Mode, in.Umask))
	r.s.changed(ctx, p)
	if err != nil {
		return r.status("mkdir", err)
	}
	a, err := c.Node.Attr(ctx)
	if err != nil {
		r.s.table.drop(c.Node)
		return r.status("mkdir", err)
	}
	if a.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		a.Mode, a.Nlink, a.Size = syscall.S_IFDIR|in.Mode&^in.Umask&0o777, 2, 0
		r.s.table.drop(c.Node)
		g := &ghost{attr: a}
		r.s.fillEntry(ctx, out, r.s.table.ghost(g, p.ino), a, vnode.Child{Node: g}, 0, true)
		return fuse.OK
	}
	n := r.s.table.look(c.Node, p.ino)
	r.s.fillEntry(ctx, out, n, a, c, r.s.epoch.Load(), true)
	return fuse.OK
}

// ghost is the empty directory that mkdir seems to have made.
type ghost struct{ attr vnode.Attr }

// Ino is that of what was really made.
func (g *ghost) Ino() uint64 { return g.attr.Ino }

// Attr shows a directory.
func (g *ghost) Attr(context.Context) (vnode.Attr, error) { return g.attr, nil }

// Lookup finds nothing.
func (g *ghost) Lookup(context.Context, string) (vnode.Child, error) {
	return vnode.Child{}, errno.ErrUnknown
}

// ReadDir lists nothing.
func (g *ghost) ReadDir(context.Context) ([]vnode.Dirent, error) { return nil, nil }

// Mknod makes device nodes, FIFOs, sockets and files.
func (r *raw) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	ctx, p, err := r.enter(cancel, &in.InHeader, name)
	if err != nil {
		return r.status("mknod", err)
	}
	m, ok := p.node.(vnode.Mknoder)
	if !ok {
		return r.status("mknod", refused(name))
	}
	c, err := m.Mknod(ctx, name, masked(ctx, p, in.Mode, in.Umask), uint64(in.Rdev))
	return r.made(ctx, "mknod", out, c, err, p)
}

// Symlink makes a symlink.
func (r *raw) Symlink(cancel <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	ctx, p, err := r.enter(cancel, h, name)
	if err != nil {
		return r.status("symlink", err)
	}
	m, ok := p.node.(vnode.Symlinker)
	if !ok {
		return r.status("symlink", refused(name))
	}
	c, err := m.Symlink(ctx, name, target)
	return r.made(ctx, "symlink", out, c, err, p)
}

// Link makes a hard link.
func (r *raw) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	ctx, p, err := r.enter(cancel, &in.InHeader, name)
	if err != nil {
		return r.status("link", err)
	}
	target, st := r.inode(in.Oldnodeid)
	if !st.Ok() {
		return st
	}
	m, ok := p.node.(vnode.Linker)
	if !ok {
		return r.status("link", refused(name))
	}
	c, err := m.Link(ctx, name, target.node)
	return r.made(ctx, "link", out, c, err, p)
}

// Unlink removes what is not a directory.
func (r *raw) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	ctx, p, err := r.enter(cancel, h, name)
	if err == nil {
		err = r.s.mayRemove(ctx, p, name)
	}
	if err != nil {
		return r.status("unlink", err)
	}
	m, ok := p.node.(vnode.Unlinker)
	if !ok {
		return r.status("unlink", refused(name))
	}
	gone := r.s.victim(ctx, p, name)
	err = m.Unlink(ctx, name)
	r.s.removed(gone, err)
	r.s.changed(ctx, p)
	return r.status("unlink", err)
}

// victim detaches the inode that is about to lose the name, when that is its
// last, and returns it; else nil.
func (s *Server) victim(ctx context.Context, dir *inode, name string) *inode {
	d, ok := dir.node.(vnode.Directory)
	if !ok {
		return nil
	}
	c, err := d.Lookup(ctx, name)
	if err != nil || c.Node == nil {
		return nil
	}
	a, err := c.Node.Attr(ctx)
	s.table.drop(c.Node)
	if err != nil || a.Nlink > 1 && a.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return nil
	}
	return s.table.detach(c.Node.Ino())
}

// removed ends what victim began.
func (s *Server) removed(victim *inode, err error) {
	if err != nil {
		s.table.attach(victim)
	}
}

// Rmdir removes a directory.
func (r *raw) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	ctx, p, err := r.enter(cancel, h, name)
	if err == nil {
		err = r.s.mayRemove(ctx, p, name)
	}
	if err != nil {
		return r.status("rmdir", err)
	}
	m, ok := p.node.(vnode.Rmdirer)
	if !ok {
		return r.status("rmdir", refused(name))
	}
	gone := r.s.victim(ctx, p, name)
	err = m.Rmdir(ctx, name)
	r.s.removed(gone, err)
	r.s.changed(ctx, p)
	return r.status("rmdir", err)
}

// Rename moves an entry; both directories are found by their node IDs.
func (r *raw) Rename(cancel <-chan struct{}, in *fuse.RenameIn, name, newName string) fuse.Status {
	ctx, p, err := r.enter(cancel, &in.InHeader, name)
	if err == nil {
		err = r.s.mayRemove(ctx, p, name)
	}
	if err != nil {
		return r.status("rename", err)
	}
	to, _, err := r.dirOf(in.Newdir, newName)
	if err == nil {
		err = r.s.may(ctx, to, unix.W_OK|unix.X_OK)
	}
	if err != nil {
		return r.status("rename", err)
	}
	m, ok := p.node.(vnode.Renamer)
	if !ok {
		return r.status("rename", refused(name))
	}
	var gone *inode
	if in.Flags&unix.RENAME_EXCHANGE == 0 {
		gone = r.s.victim(ctx, to, newName)
	}
	err = m.Rename(ctx, name, to.node, newName, in.Flags)
	r.s.removed(gone, err)
	r.s.changed(ctx, p)
	return r.status("rename", err)
}

// Create makes and opens a file.
func (r *raw) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	ctx, p, err := r.enter(cancel, &in.InHeader, name)
	if err != nil {
		return r.status("create", err)
	}
	m, ok := p.node.(vnode.Creator)
	if !ok {
		return r.status("create", refused(name))
	}
	c, h, err := m.Create(ctx, name, int(in.Flags), masked(ctx, p, in.Mode, in.Umask))
	r.s.changed(ctx, p)
	if err != nil {
		return r.status("create", err)
	}
	if err := r.s.entry(ctx, &out.EntryOut, c, p, r.s.epoch.Load(), true); err != nil {
		if rerr := h.Release(ctx); rerr != nil {
			r.s.log.Warnf("release %s: %v", name, rerr)
		}
		return r.status("create", err)
	}
	r.opened(&out.OpenOut, r.s.table.get(out.NodeId), h)
	return fuse.OK
}

// Tmpfile is not offered: open(2) with O_TMPFILE fails with EOPNOTSUPP.
func (r *raw) Tmpfile(<-chan struct{}, *fuse.CreateIn, *fuse.CreateOut) fuse.Status {
	return fuse.Status(syscall.EOPNOTSUPP)
}

var _ vnode.Directory = (*ghost)(nil)
