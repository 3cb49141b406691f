package fusefs

import (
	"context"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

// forever is the timeout of what holds for good or until a notice, in seconds.
const forever = 365 * 24 * 3600

// fill writes n's attributes into an answer.
func (s *Server) fill(ctx context.Context, out *fuse.Attr, n vnode.Node, a vnode.Attr) {
	uid, gid := s.shown(ctx, n, a)
	*out = fuse.Attr{
		Ino: a.Ino, Size: a.Size, Blocks: a.Blocks, Mode: a.Mode, Nlink: a.Nlink,
		Owner: fuse.Owner{Uid: uid, Gid: gid}, Rdev: uint32(a.Rdev),
	}
	out.Atime, out.Atimensec = stamp(a.Atime)
	out.Mtime, out.Mtimensec = stamp(a.Mtime)
	out.Ctime, out.Ctimensec = stamp(a.Ctime)
}

// shown returns the owner of n that the mounter sees.
func (s *Server) shown(ctx context.Context, n vnode.Node, a vnode.Attr) (uid, gid uint32) {
	if o, ok := n.(vnode.OwnerShower); ok {
		if uid, gid, ok := o.ShowOwner(ctx, a.UID, a.GID); ok {
			return uid, gid
		}
	}
	if s.opts.Out != nil {
		return s.opts.Out(a.UID, a.GID)
	}
	return a.UID, a.GID
}

// stamp splits a time; the zero time is shown as the epoch's beginning.
func stamp(t time.Time) (uint64, uint32) {
	if t.IsZero() {
		return 0, 0
	}
	return uint64(t.Unix()), uint32(t.Nanosecond())
}

// seconds returns the timeout for a validity told in a request that began at
// epoch begin.
func (s *Server) seconds(v vnode.Validity, begin uint64) uint64 {
	switch {
	case v == vnode.ValidForever:
		return forever
	case v == vnode.ValidStore && s.epochs.Load() && s.epoch.Load() == begin:
		return forever
	}
	return 0
}

// attrSeconds is seconds for the attributes of in, which it arms when they
// hold until the store changes.
func (s *Server) attrSeconds(in *inode, v vnode.Validity, begin uint64) uint64 {
	if v == vnode.ValidStore && (!s.epochs.Load() || !s.table.arm(in)) {
		return 0
	}
	return s.seconds(v, begin)
}

// attrOf asks the node and, when its last name is gone, the open handles.
func (s *Server) attrOf(ctx context.Context, in *inode) (vnode.Attr, error) {
	a, err := in.node.Attr(ctx)
	if err == nil || !gone(err) {
		return a, err
	}
	for _, h := range s.table.opened(in) {
		if ha, ok := h.h.(vnode.HandleAttr); ok {
			if a, herr := ha.Attr(ctx); herr == nil {
				return a, nil
			}
		}
	}
	return a, err
}

func gone(err error) bool {
	no := errno.Of(err)
	return no == syscall.ENOENT || no == syscall.ESTALE
}

// entry counts a look-up of c and fills the answer. A node made just now is
// answered without attribute validity (the kernel takes a creation's
// attributes whatever was invalidated meanwhile).
func (s *Server) entry(ctx context.Context, out *fuse.EntryOut, c vnode.Child, parent *inode, begin uint64, made bool) error {
	a, err := c.Node.Attr(ctx)
	if err != nil {
		s.table.drop(c.Node)
		return err
	}
	in := s.table.look(c.Node, parent.ino)
	s.fillEntry(ctx, out, in, a, c, begin, made)
	return nil
}

func (s *Server) fillEntry(ctx context.Context, out *fuse.EntryOut, in *inode, a vnode.Attr, c vnode.Child, begin uint64, made bool) {
	out.NodeId, out.Generation = in.id, 1
	out.EntryValid = s.seconds(c.Entry, begin)
	s.table.setValid(in, c.Attr)
	switch {
	case made:
	case c.Attr == vnode.ValidCall:
		out.AttrValidNsec = 1 // the kernel rounds up, to the second tick of its clock from now
	default:
		out.AttrValid = s.attrSeconds(in, c.Attr, begin)
	}
	s.fill(ctx, &out.Attr, in.node, a)
}

// GetAttr asks the handle when there is one, else the node.
func (r *raw) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, st := r.inode(in.NodeId)
	if !st.Ok() {
		return st
	}
	ctx, begin := r.request(cancel, &in.InHeader), r.s.epoch.Load()
	if in.Flags()&fuse.FUSE_GETATTR_FH != 0 {
		if h := r.s.files.get(in.Fh()); h != nil {
			if ha, ok := h.h.(vnode.HandleAttr); ok {
				a, err := ha.Attr(ctx)
				if err != nil {
					return r.status("getattr", err)
				}
				r.s.fill(ctx, &out.Attr, n.node, a)
				return fuse.OK
			}
		}
	}
	a, err := r.s.attrOf(ctx, n)
	if err != nil {
		return r.status("getattr", err)
	}
	out.AttrValid = r.s.attrSeconds(n, r.s.table.validOf(n), begin)
	r.s.fill(ctx, &out.Attr, n.node, a)
	return fuse.OK
}

// SetAttr changes size, mode, owner or times, through the handle if the
// kernel names one.
func (r *raw) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, st := r.inode(in.NodeId)
	if !st.Ok() {
		return st
	}
	ctx := r.request(cancel, &in.InHeader)
	set, err := r.s.setAttr(in, n.node)
	if err != nil {
		return r.status("setattr", err)
	}
	var h *handle
	if fh, ok := in.GetFh(); ok {
		h = r.s.files.get(fh)
	}
	if err := r.s.mayChange(ctx, n, set, h != nil); err != nil {
		return r.status("setattr", err)
	}
	err = r.s.applySet(ctx, n, h, set)
	r.s.changed(ctx, n)
	if err != nil {
		return r.status("setattr", err)
	}
	a, err := r.s.attrAfter(ctx, n, h)
	if err != nil {
		return r.status("setattr", err)
	}
	r.s.fill(ctx, &out.Attr, n.node, a)
	return fuse.OK
}

func (s *Server) attrAfter(ctx context.Context, n *inode, h *handle) (vnode.Attr, error) {
	if h != nil {
		if ha, ok := h.h.(vnode.HandleAttr); ok {
			return ha.Attr(ctx)
		}
	}
	return s.attrOf(ctx, n)
}

func (s *Server) setAttr(in *fuse.SetAttrIn, n vnode.Node) (set vnode.SetAttr, err error) {
	if m, ok := in.GetMode(); ok {
		set.Mode = &m
	}
	if uid, ok := in.GetUID(); ok {
		set.UID = &uid
	}
	if gid, ok := in.GetGID(); ok {
		set.GID = &gid
	}
	if err = s.realOwner(&set, n); err != nil {
		return set, err
	}
	if size, ok := in.GetSize(); ok {
		set.Size = &size
	}
	set.Atime = when(in.Valid, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec)
	set.Mtime = when(in.Valid, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec)
	return set, nil
}

// realOwner turns the owner that n is to have from what the mounter sees into
// what it is.
func (s *Server) realOwner(set *vnode.SetAttr, n vnode.Node) error {
	if t, ok := n.(vnode.OwnerTaker); ok {
		uid, gid, ok, err := t.TakeOwner(set.UID, set.GID)
		if ok || err != nil {
			set.UID, set.GID = uid, gid
			return err
		}
	}
	if s.opts.In == nil {
		return nil
	}
	if set.UID != nil {
		*set.UID, _ = s.opts.In(*set.UID, 0)
	}
	if set.GID != nil {
		_, *set.GID = s.opts.In(0, *set.GID)
	}
	return nil
}

// when returns nil for no change and a zero time for "now".
func when(valid, bit, now uint32, sec uint64, nsec uint32) *time.Time {
	if valid&bit == 0 {
		return nil
	}
	var t time.Time
	if valid&now == 0 {
		t = time.Unix(int64(sec), int64(nsec))
	}
	return &t
}

// applySet changes the size first, by the handle if it can, and then the rest.
func (s *Server) applySet(ctx context.Context, n *inode, h *handle, set vnode.SetAttr) error {
	if set.Size != nil && h != nil {
		if tr, ok := h.h.(vnode.Truncater); ok {
			if err := tr.Truncate(ctx, *set.Size); err != nil {
				return err
			}
			h.wrote.Store(true)
			set.Size = nil
			if _, ok := n.node.(vnode.Setattrer); !ok {
				set.Mtime, set.Atime = nil, nil // the kernel sends a time along
			}
		}
	}
	if set.Size != nil {
		if _, ok := n.node.(vnode.Setattrer); !ok {
			if err := truncatePath(ctx, n.node, *set.Size); err != nil {
				return err
			}
			set.Size, set.Mtime, set.Atime = nil, nil, nil
		}
	}
	if set == (vnode.SetAttr{}) {
		return nil
	}
	return s.setRest(ctx, n, h, set)
}

func (s *Server) setRest(ctx context.Context, n *inode, h *handle, set vnode.SetAttr) error {
	if h != nil {
		if hs, ok := h.h.(vnode.HandleSetattr); ok {
			_, err := hs.Setattr(ctx, set)
			return err
		}
	}
	sa, ok := n.node.(vnode.Setattrer)
	if !ok {
		return errno.New(errno.ErrReadOnly, "the attributes of this file cannot be changed")
	}
	_, err := sa.Setattr(ctx, set)
	if err == nil || !gone(err) {
		return err
	}
	for _, o := range s.table.opened(n) {
		if hs, ok := o.h.(vnode.HandleSetattr); ok {
			if _, herr := hs.Setattr(ctx, set); herr == nil {
				return nil
			}
		}
	}
	return err
}

// truncatePath is truncate(2) on a file that knows sizes only through handles.
func truncatePath(ctx context.Context, n vnode.Node, size uint64) (err error) {
	op, ok := n.(vnode.Opener)
	if !ok {
		return errno.New(errno.ErrBadValue, "only a regular file can be truncated")
	}
	flags := syscall.O_WRONLY
	if size == 0 {
		flags |= syscall.O_TRUNC
	}
	h, err := op.Open(ctx, flags)
	if err != nil {
		return err
	}
	defer func() {
		if rerr := h.Release(ctx); err == nil {
			err = rerr
		}
	}()
	tr, ok := h.(vnode.Truncater)
	if !ok {
		return errno.New(errno.ErrNotSupported, "this file cannot be cut to a size")
	}
	if err := tr.Truncate(ctx, size); err != nil {
		return err
	}
	if f, ok := h.(vnode.Flusher); ok {
		return f.Flush(ctx)
	}
	return nil
}
