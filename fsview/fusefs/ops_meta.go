package fusefs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/plyfs/plyfs/internal/vnode"
)

// Readlink returns a symlink's target.
func (r *raw) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n, st := r.inode(h.NodeId)
	if !st.Ok() {
		return nil, st
	}
	l, ok := n.node.(vnode.Symlink)
	if !ok {
		return nil, fuse.EINVAL
	}
	target, err := l.Readlink(r.request(cancel, h))
	return []byte(target), r.status("readlink", err)
}

// Access answers access(2) and chdir(2) where the kernel does not check itself.
func (r *raw) Access(cancel <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	n, st := r.inode(in.NodeId)
	if !st.Ok() {
		return st
	}
	return r.status("access", r.s.may(r.request(cancel, &in.InHeader), n, in.Mask))
}

// GetXAttr reads one extended attribute.
func (r *raw) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	n, st := r.inode(h.NodeId)
	if !st.Ok() {
		return 0, st
	}
	x, ok := n.node.(vnode.Xattrer)
	if !ok {
		return 0, fuse.Status(syscall.EOPNOTSUPP)
	}
	v, err := x.Getxattr(r.request(cancel, h), attr)
	if err == nil {
		v, err = r.s.showACL(n.node, attr, v)
	}
	if err != nil {
		return 0, r.status("getxattr", err)
	}
	if len(v) > len(dest) {
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}

// ListXAttr lists the names, each with a zero byte behind it.
func (r *raw) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n, st := r.inode(h.NodeId)
	if !st.Ok() {
		return 0, st
	}
	x, ok := n.node.(vnode.Xattrer)
	if !ok {
		return 0, fuse.OK // an empty list
	}
	names, err := x.Listxattr(r.request(cancel, h))
	if err != nil {
		return 0, r.status("listxattr", err)
	}
	total := 0
	for _, name := range names {
		total += len(name) + 1
	}
	if total > len(dest) {
		return uint32(total), fuse.ERANGE
	}
	at := 0
	for _, name := range names {
		at += copy(dest[at:], name)
		dest[at] = 0
		at++
	}
	return uint32(total), fuse.OK
}

// SetXAttr sets one extended attribute.
func (r *raw) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	return r.xattrChange(cancel, &in.InHeader, "setxattr", func(ctx context.Context, n *inode, x vnode.XattrSetter) error {
		v, err := r.s.takeACL(n.node, attr, data)
		if err != nil {
			return err
		}
		return x.Setxattr(ctx, attr, v, int(in.Flags))
	})
}

// RemoveXAttr removes one extended attribute.
func (r *raw) RemoveXAttr(cancel <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	return r.xattrChange(cancel, h, "removexattr", func(ctx context.Context, _ *inode, x vnode.XattrSetter) error {
		return x.Removexattr(ctx, attr)
	})
}

func (r *raw) xattrChange(cancel <-chan struct{}, h *fuse.InHeader, op string, do func(context.Context, *inode, vnode.XattrSetter) error) fuse.Status {
	n, st := r.inode(h.NodeId)
	if !st.Ok() {
		return st
	}
	x, ok := n.node.(vnode.XattrSetter)
	if !ok {
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	ctx := r.request(cancel, h)
	if err := r.s.mayOwn(ctx, n); err != nil {
		return r.status(op, err)
	}
	err := do(ctx, n, x)
	r.s.changed(ctx, n)
	return r.status(op, err)
}

// StatFs asks the node, or shows an empty filesystem.
func (r *raw) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, nameMax
	n, st := r.inode(h.NodeId)
	if !st.Ok() {
		return st
	}
	sf, ok := n.node.(vnode.Statfser)
	if !ok {
		return fuse.OK
	}
	v, err := sf.Statfs(r.request(cancel, h))
	if err != nil {
		return r.status("statfs", err)
	}
	out.FromStatfsT(&v)
	return fuse.OK
}

// Statx is left to GETATTR, which the kernel asks then for good.
func (r *raw) Statx(<-chan struct{}, *fuse.StatxIn, *fuse.StatxOut) fuse.Status { return fuse.ENOSYS }
