package fusefs

import (
	"context"
	"errors"
	"io"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

// Open opens a regular file. O_TRUNC arrives here, never as a SETATTR before.
func (r *raw) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, st := r.inode(in.NodeId)
	if !st.Ok() {
		return st
	}
	op, ok := n.node.(vnode.Opener)
	if !ok {
		if _, dir := n.node.(vnode.Directory); dir {
			return fuse.Status(syscall.EISDIR)
		}
		return fuse.EINVAL
	}
	ctx := r.request(cancel, &in.InHeader)
	if err := r.s.may(ctx, n, accessMask(int(in.Flags))); err != nil {
		return r.status("open", err)
	}
	h, err := op.Open(ctx, int(in.Flags))
	if in.Flags&syscall.O_TRUNC != 0 {
		r.s.changed(ctx, n)
	}
	if err != nil {
		return r.status("open", err)
	}
	r.opened(out, n, h)
	if in.Flags&syscall.O_ACCMODE == syscall.O_RDONLY {
		out.OpenFlags |= fuse.FOPEN_NOFLUSH // there is nothing that close(2) could report
	}
	return fuse.OK
}

// opened makes the kernel's handle for h.
func (r *raw) opened(out *fuse.OpenOut, n *inode, h vnode.Handle) {
	hd := &handle{in: n, h: h}
	if n != nil {
		r.s.table.addOpen(n, hd)
	}
	var id int32
	if hd.pass, id = r.s.acquire(n, h); hd.pass == passed {
		out.OpenFlags |= fuse.FOPEN_PASSTHROUGH
		out.BackingID = id
	}
	out.Fh = r.s.files.add(hd)
	f := h.Flags()
	for _, m := range [...]struct {
		ours vnode.OpenFlags
		fuse uint32
	}{
		{vnode.DirectIO, fuse.FOPEN_DIRECT_IO}, {vnode.KeepCache, fuse.FOPEN_KEEP_CACHE},
		{vnode.NonSeekable, fuse.FOPEN_NONSEEKABLE}, {vnode.NoFlush, fuse.FOPEN_NOFLUSH},
	} {
		if f&m.ours != 0 {
			out.OpenFlags |= m.fuse
		}
	}
	if hd.pass == passed {
		out.OpenFlags &^= fuse.FOPEN_KEEP_CACHE // the kernel would refuse the two together
	}
}

// file returns the open file of a request.
func (r *raw) file(fh uint64) (*handle, fuse.Status) {
	h := r.s.files.get(fh)
	if h == nil || h.h == nil {
		return nil, fuse.EBADF
	}
	return h, fuse.OK
}

// Read reads; a short count ends the file.
func (r *raw) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h, st := r.file(in.Fh)
	if !st.Ok() {
		return nil, st
	}
	n, err := h.h.ReadAt(r.request(cancel, &in.InHeader), buf, int64(in.Offset))
	if err != nil && !errors.Is(err, io.EOF) && n == 0 {
		return nil, r.status("read", err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// Write writes all of data or fails.
func (r *raw) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h, st := r.file(in.Fh)
	if !st.Ok() {
		return 0, st
	}
	w, ok := h.h.(vnode.Writer)
	if !ok {
		return 0, r.status("write", errno.New(errno.ErrReadOnly, "this file cannot be written"))
	}
	ctx := r.request(cancel, &in.InHeader)
	h.wrote.Store(true)
	n, err := w.WriteAt(ctx, data, int64(in.Offset))
	r.s.changed(ctx, h.in)
	if err != nil && n == 0 {
		return 0, r.status("write", err)
	}
	return uint32(n), fuse.OK
}

// Flush is close(2) of one descriptor; its error is close's.
func (r *raw) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	h, st := r.file(in.Fh)
	if !st.Ok() {
		return st
	}
	f, ok := h.h.(vnode.Flusher)
	if !ok {
		return fuse.OK // not ENOSYS: other files have a Flusher
	}
	ctx := r.request(cancel, &in.InHeader)
	err := f.Flush(ctx)
	if h.wrote.Load() {
		r.s.changed(ctx, h.in)
	}
	return r.status("flush", err)
}

// Release is the end of the last descriptor.
func (r *raw) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	if h := r.s.files.take(in.Fh); h != nil && h.h != nil {
		r.s.release(r.request(cancel, &in.InHeader), h)
	}
}

func (s *Server) release(ctx context.Context, h *handle) {
	if h.h == nil {
		return
	}
	if h.in != nil {
		s.table.dropOpen(h.in, h)
	}
	s.passing.release(h.in, h.pass)
	if err := h.h.Release(ctx); err != nil {
		s.log.WithField("op", "release").Warn(err.Error())
	}
	if h.wrote.Load() && s.serving.Load() {
		s.changed(ctx, h.in)
	}
}

// Fsync makes a file durable where its handle can.
func (r *raw) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h, st := r.file(in.Fh)
	if !st.Ok() {
		return st
	}
	f, ok := h.h.(vnode.Fsyncer)
	if !ok {
		return fuse.OK
	}
	return r.status("fsync", f.Fsync(r.request(cancel, &in.InHeader), in.FsyncFlags&1 != 0))
}

// Lseek finds data and holes. A file that knows of none is all data.
func (r *raw) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	h, st := r.file(in.Fh)
	if !st.Ok() {
		return st
	}
	ctx := r.request(cancel, &in.InHeader)
	if sk, ok := h.h.(vnode.Seeker); ok {
		off, err := sk.Seek(ctx, int64(in.Offset), int(in.Whence))
		if err != nil {
			return r.status("lseek", err)
		}
		out.Offset = uint64(off)
		return fuse.OK
	}
	a, err := r.s.attrAfter(ctx, h.in, h)
	if err != nil {
		return r.status("lseek", err)
	}
	switch {
	case in.Offset >= a.Size:
		return fuse.Status(syscall.ENXIO)
	case in.Whence == unix.SEEK_DATA:
		out.Offset = in.Offset
	case in.Whence == unix.SEEK_HOLE:
		out.Offset = a.Size
	default:
		return fuse.EINVAL
	}
	return fuse.OK
}

// Fallocate reserves or punches.
func (r *raw) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	h, st := r.file(in.Fh)
	if !st.Ok() {
		return st
	}
	al, ok := h.h.(vnode.Allocator)
	if !ok {
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	h.wrote.Store(true)
	ctx := r.request(cancel, &in.InHeader)
	err := al.Allocate(ctx, int64(in.Offset), int64(in.Length), in.Mode)
	r.s.changed(ctx, h.in)
	return r.status("fallocate", err)
}

// CopyFileRange is left to the kernel, which then reads and writes: EOPNOTSUPP
// makes it fall back for this call.
func (r *raw) CopyFileRange(<-chan struct{}, *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	return 0, fuse.Status(syscall.EOPNOTSUPP)
}

// Ioctl is not offered: ENOTTY, as for any file without device functions.
func (r *raw) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(syscall.ENOTTY)
}

func accessMask(flags int) uint32 {
	var m uint32
	switch flags & syscall.O_ACCMODE {
	case syscall.O_RDONLY:
		m = unix.R_OK
	case syscall.O_WRONLY:
		m = unix.W_OK
	default:
		m = unix.R_OK | unix.W_OK
	}
	if flags&syscall.O_TRUNC != 0 {
		m |= unix.W_OK
	}
	return m
}
