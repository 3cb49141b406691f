package fuseoverlay

import (
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
)

// raw answers the kernel's requests for an Overlay. OPEN, OPENDIR, CREATE,
// FLUSH and ACCESS are answered ENOSYS, once each: the kernel then opens files
// itself, keeps their pages and listings, and makes files with MKNOD. READ and
// WRITE come by the node's number. In passthrough mode OPEN and CREATE are
// answered.
type raw struct {
	fuse.RawFileSystem
	o           *Overlay
	entry, attr time.Duration
	edge        edge
}

// forever is the validity of what only the kernel's own requests change.
const forever = 365 * 24 * time.Hour

func newRaw(o *Overlay) *raw {
	r := &raw{RawFileSystem: fuse.NewDefaultRawFileSystem(), o: o, entry: forever, attr: forever, edge: newEdge(&o.c)}
	if o.c.EntryTimeout > 0 {
		r.entry = o.c.EntryTimeout
	}
	if o.c.AttrTimeout > 0 {
		r.attr = o.c.AttrTimeout
	}
	if o.c.AllowRoot {
		r.entry, r.attr = 0, 0
	}
	return r
}

func (r *raw) String() string { return Subtype }

// Init comes before all other requests, from go-fuse's server.
func (r *raw) Init(s *fuse.Server) { r.o.tellKernel(s) }

// notifier tells the kernel that what it knows of an inode is no longer true.
type notifier interface {
	InodeNotify(node uint64, off, length int64) fuse.Status
}

// tellKernel lets the kernel be told of what has changed. It believes a mode for good and
// leaves it to the server to clear set-ID bits on a write: it is told that its
// attributes are no longer true. Such a notice, of attributes only, takes no
// lock of the kernel's that the request holds.
func (o *Overlay) tellKernel(s notifier) {
	o.modeChanged = func(n *node) {
		if st := s.InodeNotify(n.id, -1, 0); !st.Ok() {
			o.log.Debugf("tell of a changed mode: %v", st)
		}
	}
	o.numberChanged = func(n, dir *node) {
		for id, off := range map[uint64]int64{n.id: -1, dir.id: 0} { // of the directory, its listing
			if st := s.InodeNotify(id, off, 0); !st.Ok() {
				o.log.Debugf("tell of a changed inode number: %v", st)
			}
		}
	}
}

// status turns an error into an answer.
func (r *raw) status(op string, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	no := errno.Of(err)
	if r.o.log.Logger.IsLevelEnabled(logrus.DebugLevel) {
		r.o.log.WithField("op", op).Debugf("%v (%s)", err, unix.ErrnoName(no))
	}
	return fuse.Status(no)
}

func (r *raw) node(id uint64) (*node, fuse.Status) {
	if n := r.o.get(id); n != nil {
		return n, fuse.OK
	}
	return nil, fuse.Status(syscall.ESTALE)
}

func (r *raw) fillAttr(out *fuse.Attr, st safefs.Stat) {
	r.edge.show(&st)
	*out = fuse.Attr{
		Ino: st.Ino, Size: st.Size, Blocks: st.Blocks, Mode: st.Mode, Nlink: st.Nlink,
		Owner: fuse.Owner{Uid: st.UID, Gid: st.GID}, Rdev: uint32(st.Rdev), Blksize: st.Blksize,
		Atime: uint64(st.Atime.Unix()), Atimensec: uint32(st.Atime.Nanosecond()),
		Mtime: uint64(st.Mtime.Unix()), Mtimensec: uint32(st.Mtime.Nanosecond()),
		Ctime: uint64(st.Ctime.Unix()), Ctimensec: uint32(st.Ctime.Nanosecond()),
	}
}

// validity says how long the kernel may believe n's attributes.
func (r *raw) validity(n *node) time.Duration {
	if n.is(flagMapped | flagUnlinked) {
		return 0
	}
	return r.attr
}

func (r *raw) fillEntry(out *fuse.EntryOut, n *node, st *safefs.Stat) {
	out.NodeId, out.Generation = n.id, 1
	out.SetEntryTimeout(r.entry)
	out.SetAttrTimeout(r.validity(n))
	r.fillAttr(&out.Attr, *st)
}

// Lookup finds a name; that there is none is remembered too.
func (r *raw) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir, s := r.node(h.NodeId)
	if !s.Ok() {
		return s
	}
	n, st, err := r.o.lookup(request(cancel, h), dir, name)
	if err != nil {
		return r.status("lookup", err)
	}
	if n == nil {
		out.SetEntryTimeout(r.entry)
		return fuse.OK
	}
	dir.dir.wanted.Store(true)
	r.fillEntry(out, n, &st)
	return fuse.OK
}

// Forget takes look-ups back.
func (r *raw) Forget(id, k uint64) {
	if n := r.o.get(id); n != nil {
		r.o.forget(n, k)
	}
}

// GetAttr is stat.
func (r *raw) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, s := r.node(in.NodeId)
	if !s.Ok() {
		return s
	}
	st, err := r.o.stat(n)
	if err != nil {
		return r.status("getattr", err)
	}
	out.SetTimeout(r.validity(n))
	r.fillAttr(&out.Attr, st)
	return fuse.OK
}

// Statx is asked when someone wants the time of birth.
func (r *raw) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	n, s := r.node(in.NodeId)
	if !s.Ok() {
		return s
	}
	st, err := r.o.stat(n)
	if err != nil {
		return r.status("statx", err)
	}
	r.edge.show(&st)
	out.SetTimeout(r.validity(n))
	out.Statx = fuse.Statx{
		Mask: unix.STATX_BASIC_STATS, Blksize: st.Blksize, Nlink: st.Nlink, Uid: st.UID, Gid: st.GID,
		Mode: uint16(st.Mode), Ino: st.Ino, Size: st.Size, Blocks: st.Blocks,
		Atime: sxTime(st.Atime), Mtime: sxTime(st.Mtime), Ctime: sxTime(st.Ctime),
		RdevMajor: unix.Major(st.Rdev), RdevMinor: unix.Minor(st.Rdev),
	}
	if !st.Btime.IsZero() {
		out.Mask |= unix.STATX_BTIME
		out.Btime = sxTime(st.Btime)
	}
	return fuse.OK
}

func sxTime(t time.Time) fuse.SxTime {
	return fuse.SxTime{Sec: uint64(t.Unix()), Nsec: uint32(t.Nanosecond())}
}

// SetAttr changes attributes.
func (r *raw) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, s := r.node(in.NodeId)
	if !s.Ok() {
		return s
	}
	var c change
	if mode, ok := in.GetMode(); ok {
		c.mode = &mode
	}
	if uid, ok := in.GetUID(); ok {
		c.uid = &uid
	}
	if gid, ok := in.GetGID(); ok {
		c.gid = &gid
	}
	if size, ok := in.GetSize(); ok {
		c.size = &size
	}
	c.atime, _ = in.GetATime()
	c.mtime, _ = in.GetMTime()
	c.killPriv = in.Valid&fuse.FATTR_KILL_SUIDGID != 0
	if err := r.edge.keepChange(&c); err != nil {
		return r.status("setattr", err)
	}
	// By a change of nothing the kernel says that someone without privilege is about
	// to change the content of a file with set-ID bits: by fallocate,
	// copy_file_range, or a write that is passed through.
	c.killWrite = in.Valid&^(fuse.FATTR_FH|fuse.FATTR_LOCKOWNER) == 0
	ctx := request(cancel, &in.InHeader)
	if c.size != nil {
		if err := r.o.pass.changes(ctx, n); err != nil {
			return r.status("setattr", err)
		}
	}
	st, err := r.o.setattr(ctx, n, c)
	if r.o.madeRoom(ctx, err) {
		st, err = r.o.setattr(ctx, n, c)
	}
	if err != nil {
		return r.status("setattr", err)
	}
	out.SetTimeout(r.validity(n))
	r.fillAttr(&out.Attr, st)
	return fuse.OK
}

// Readlink returns a symlink's text.
func (r *raw) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n, s := r.node(h.NodeId)
	if !s.Ok() {
		return nil, s
	}
	target, err := r.o.readlink(n)
	return []byte(target), r.status("readlink", err)
}

// GetXAttr reads an extended attribute.
func (r *raw) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	n, s := r.node(h.NodeId)
	if !s.Ok() {
		return 0, s
	}
	v, err := r.o.getxattr(n, attr)
	if err == nil {
		v, err = r.edge.acl(attr, v, true)
	}
	if err != nil {
		return 0, r.status("getxattr", err)
	}
	return answer(dest, v)
}

// answer copies v; an empty dest asks for its length.
func answer(dest, v []byte) (uint32, fuse.Status) {
	if len(dest) < len(v) {
		return uint32(len(v)), fuse.ERANGE
	}
	copy(dest, v)
	return uint32(len(v)), fuse.OK
}

// ListXAttr lists extended attributes.
func (r *raw) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n, s := r.node(h.NodeId)
	if !s.Ok() {
		return 0, s
	}
	names, err := r.o.listxattr(n, h.Uid == 0)
	if err != nil {
		return 0, r.status("listxattr", err)
	}
	var b strings.Builder
	for _, name := range names {
		_, _ = b.WriteString(name) // never fails
		_ = b.WriteByte(0)
	}
	return answer(dest, []byte(b.String()))
}

// SetXAttr sets an extended attribute.
func (r *raw) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	n, s := r.node(in.NodeId)
	if !s.Ok() {
		return s
	}
	ctx := request(cancel, &in.InHeader)
	data, err := r.edge.acl(attr, data, false)
	if err == nil {
		err = r.o.setxattr(ctx, n, attr, data, int(in.Flags))
	}
	if r.o.madeRoom(ctx, err) {
		err = r.o.setxattr(ctx, n, attr, data, int(in.Flags))
	}
	if err == nil && in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0 {
		var st safefs.Stat
		if st, err = r.o.stat(n); err == nil && st.Mode&unix.S_ISGID != 0 {
			mode := st.Mode & 0o7777 &^ unix.S_ISGID
			_, err = r.o.setattr(ctx, n, change{mode: &mode})
		}
	}
	return r.status("setxattr", err)
}

// RemoveXAttr removes an extended attribute.
func (r *raw) RemoveXAttr(cancel <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	n, s := r.node(h.NodeId)
	if !s.Ok() {
		return s
	}
	return r.change(request(cancel, h), "removexattr", func(ctx context.Context) error { return r.o.removexattr(ctx, n, attr) })
}

// Open is done by the kernel alone, but in passthrough mode.
func (r *raw) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if r.o.pass == nil {
		return fuse.ENOSYS
	}
	n, s := r.node(in.NodeId)
	if !s.Ok() {
		return s
	}
	ctx := request(cancel, &in.InHeader)
	err := r.o.openFor(ctx, n, in.Flags, in.Mode&fuse.OPEN_KILL_SUIDGID != 0)
	if err == nil {
		err = r.passOpen(ctx, n, in.Flags, true, out)
	}
	return r.status("open", err)
}

// OpenDir is done by the kernel alone.
func (r *raw) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// Create is MKNOD and nothing else, but in passthrough mode.
func (r *raw) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if r.o.pass == nil {
		return fuse.ENOSYS
	}
	return r.passCreate(cancel, in, name, out)
}

// Flush does nothing: there is nothing that is not in the upper already.
func (r *raw) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Access is decided by the kernel, which has modes and ACLs.
func (r *raw) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

// Release comes after TMPFILE, and in passthrough mode after OPEN and CREATE.
func (r *raw) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if r.o.pass == nil {
		return
	}
	if n := r.o.get(in.NodeId); n != nil {
		r.o.pass.release(n, in.Fh)
	}
}

// Ioctl knows none.
func (r *raw) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(syscall.ENOTTY)
}

// Read reads a file.
func (r *raw) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, s := r.node(in.NodeId)
	if !s.Ok() {
		return nil, s
	}
	k, err := r.o.read(n, buf, int64(in.Offset))
	if err != nil && k == 0 {
		return nil, r.status("read", err)
	}
	return fuse.ReadResultData(buf[:k]), fuse.OK
}

// Write writes a file.
func (r *raw) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n, s := r.node(in.NodeId)
	if !s.Ok() {
		return 0, s
	}
	ctx, kill := request(cancel, &in.InHeader), in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0
	k, err := r.o.write(ctx, n, data, int64(in.Offset), kill)
	if r.o.madeRoom(ctx, err) {
		k, err = r.o.write(ctx, n, data, int64(in.Offset), kill)
	}
	return uint32(k), r.status("write", err)
}

// WriteFrom implements fusewire.Sinks, for files that are in the upper: a copy-up
// may have to be interrupted.
func (r *raw) WriteFrom(in *fuse.WriteIn, move func(fd int, off int64, most int) (int, error)) (k uint32, s fuse.Status, done bool) {
	defer func() {
		if p := recover(); p != nil {
			k, s, done = 0, fuse.ToStatus(r.o.panicked(p)), true
		}
	}()
	n := r.o.get(in.NodeId)
	if n == nil || !n.is(flagUp) || n.is(flagDataBelow) {
		return 0, fuse.OK, false
	}
	w, err := r.o.writeBy(request(nil, &in.InHeader), n, int(in.Size), int64(in.Offset), in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0, move)
	if w == 0 && (errors.Is(err, syscall.EINVAL) || noRoom(err)) {
		return 0, fuse.OK, false // its filesystem has no splice, or Write may wait for room
	}
	return uint32(w), r.status("write", err), true
}

// Lseek answers SEEK_DATA and SEEK_HOLE.
func (r *raw) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	if r.o.c.Writeback {
		return fuse.ENOSYS // holes that are about to be written would be taken for holes
	}
	n, s := r.node(in.NodeId)
	if !s.Ok() {
		return s
	}
	off, err := r.o.seek(n, int64(in.Offset), int(in.Whence))
	out.Offset = uint64(off)
	return r.status("lseek", err)
}

// CopyFileRange copies within the overlay.
func (r *raw) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	from, s := r.node(in.NodeId)
	if !s.Ok() {
		return 0, s
	}
	to, s := r.node(in.NodeIdOut)
	if !s.Ok() {
		return 0, s
	}
	ctx, size := request(cancel, &in.InHeader), int(min(in.Len, 1<<30))
	k, err := r.o.copyRange(ctx, from, int64(in.OffIn), to, int64(in.OffOut), size)
	if k == 0 && r.o.madeRoom(ctx, err) {
		k, err = r.o.copyRange(ctx, from, int64(in.OffIn), to, int64(in.OffOut), size)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return uint32(k), r.status("copy_file_range", err)
}

// Fallocate reserves, zeroes or frees space.
func (r *raw) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	n, s := r.node(in.NodeId)
	if !s.Ok() {
		return s
	}
	return r.change(request(cancel, &in.InHeader), "fallocate", func(ctx context.Context) error {
		return r.o.fallocate(ctx, n, in.Mode, int64(in.Offset), int64(in.Length))
	})
}

// Fsync makes a file durable.
func (r *raw) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n, s := r.node(in.NodeId)
	if !s.Ok() {
		return s
	}
	return r.status("fsync", r.o.fsync(n, in.FsyncFlags&1 != 0))
}

// FsyncDir makes a directory's entries durable.
func (r *raw) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return r.Fsync(cancel, in)
}

// StatFs is that of the upper, or the top layer; what was removed before counts no
// more, but nobody waits long for that.
func (r *raw) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var st syscall.Statfs_t
	wait, stop := context.WithTimeout(context.Background(), statfsWaits)
	defer stop()
	r.o.spares.drop() // nobody has asked for these
	ctx := asked{wait, cancel, h.Pid}
	r.o.forgotten(ctx)
	if _, err := r.o.trash.emptied(ctx); err != nil && wait.Err() == nil {
		return r.status("statfs", err)
	}
	err := r.o.root.stack()[0].with(func(d *safefs.Dir) error { return syscall.Fstatfs(d.Fd(), &st) })
	if err != nil {
		return r.status("statfs", err)
	}
	r.o.quota.statfs(&st)
	out.FromStatfsT(&st)
	return fuse.OK
}

// File implements fusewire.Files, for READ.
func (r *raw) File(id uint64, use func(fd int)) {
	defer func() {
		if p := recover(); p != nil {
			_ = r.o.panicked(p) // READ is then answered with what went wrong, as ever
		}
	}()
	n := r.o.get(id)
	if n == nil {
		return
	}
	b, err := r.o.open(n, false)
	if err != nil {
		return
	}
	defer r.o.fds.leave(b)
	use(b.fd)
}
