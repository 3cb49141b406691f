package hosttree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/vnode"
)

// Open opens the content of a regular file.
func (n *node) Open(_ context.Context, flags int) (h vnode.Handle, err error) {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY || flags&syscall.O_TRUNC != 0 {
		if err := n.w.writable(); err != nil {
			return nil, err
		}
	}
	err = n.with(func(r *safefs.Ref) error {
		st, err := r.Stat()
		if err != nil {
			return err
		}
		if st.Type() != syscall.S_IFREG {
			return errno.New(errno.ErrBadValue, "only a regular file is opened here")
		}
		f, err := r.Open(backingFlags(flags) | syscall.O_NONBLOCK)
		if err != nil {
			return err
		}
		h = &handle{f: f, n: &node{w: n.w, f: n.f}}
		return nil
	})
	return h, err
}

// handle is an open file. It lives on when the file loses its names.
type handle struct {
	f *os.File
	n *node
}

var (
	_ vnode.Writer        = (*handle)(nil)
	_ vnode.Flusher       = (*handle)(nil)
	_ vnode.Truncater     = (*handle)(nil)
	_ vnode.HandleAttr    = (*handle)(nil)
	_ vnode.HandleSetattr = (*handle)(nil)
	_ vnode.Fsyncer       = (*handle)(nil)
	_ vnode.Seeker        = (*handle)(nil)
	_ vnode.Allocator     = (*handle)(nil)
)

// control calls do with f's descriptor, which stays open meanwhile.
func control(f *os.File, do func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var derr error
	if err := conn.Control(func(fd uintptr) { derr = do(int(fd)) }); err != nil {
		return err
	}
	return derr
}

// Flags lets the kernel cache pages as long as the file is not seen to change.
func (h *handle) Flags() vnode.OpenFlags { return 0 }

// ReadAt reads.
func (h *handle) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	n, err := h.f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// WriteAt writes; a file opened with O_APPEND is written at its end.
func (h *handle) WriteAt(_ context.Context, p []byte, off int64) (n int, err error) {
	err = control(h.f, func(fd int) error {
		for n < len(p) {
			m, err := unix.Pwrite(fd, p[n:], off+int64(n))
			n += max(m, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return fmt.Errorf("write: %w", err)
			}
		}
		return nil
	})
	return n, err
}

// Flush reports what close(2) of the backing would report, and keeps it open.
func (h *handle) Flush(context.Context) error {
	return control(h.f, func(fd int) error {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("flush: %w", err)
		}
		if err := unix.Close(dup); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("flush: %w", err)
		}
		return nil
	})
}

// Release closes the file.
func (h *handle) Release(context.Context) error { return h.f.Close() }

// Truncate sets the size.
func (h *handle) Truncate(_ context.Context, size uint64) error { return h.f.Truncate(int64(size)) }

// Attr tells of the open file, which may have no name any more.
func (h *handle) Attr(context.Context) (vnode.Attr, error) { return attrOfFd(h.n.f.vino, h.f) }

// Setattr changes the open file, which may have no name any more.
func (h *handle) Setattr(_ context.Context, s vnode.SetAttr) (vnode.Attr, error) {
	if err := h.n.w.writable(); err != nil {
		return vnode.Attr{}, err
	}
	err := control(h.f, func(fd int) error { return setFd(fd, s) })
	if err != nil {
		return vnode.Attr{}, err
	}
	return attrOfFd(h.n.f.vino, h.f)
}

func setFd(fd int, s vnode.SetAttr) error {
	if s.UID != nil || s.GID != nil {
		if err := unix.Fchown(fd, id(s.UID), id(s.GID)); err != nil {
			return err
		}
	}
	if s.Mode != nil {
		if err := unix.Fchmod(fd, *s.Mode&0o7777); err != nil {
			return err
		}
	}
	if s.Size != nil {
		if err := unix.Ftruncate(fd, int64(*s.Size)); err != nil {
			return err
		}
	}
	if s.Atime == nil && s.Mtime == nil {
		return nil
	}
	ts := []unix.Timespec{timespec(s.Atime), timespec(s.Mtime)}
	return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), ts, 0)
}

func timespec(t *time.Time) unix.Timespec {
	switch {
	case t == nil:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case t.IsZero():
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	ts, err := unix.TimeToTimespec(*t)
	if err != nil {
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	return ts
}

// Fsync makes the content durable.
func (h *handle) Fsync(_ context.Context, dataOnly bool) error {
	return control(h.f, func(fd int) error {
		if dataOnly {
			return unix.Fdatasync(fd)
		}
		return unix.Fsync(fd)
	})
}

// Seek finds data and holes.
func (h *handle) Seek(_ context.Context, off int64, whence int) (pos int64, err error) {
	err = control(h.f, func(fd int) error {
		pos, err = unix.Seek(fd, off, whence)
		return err
	})
	return pos, err
}

// Allocate reserves or punches.
func (h *handle) Allocate(_ context.Context, off, size int64, mode uint32) error {
	return control(h.f, func(fd int) error { return unix.Fallocate(fd, mode, off, size) })
}
