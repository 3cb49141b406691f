package fuseoverlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/vnode"
)

// handle is an open file of a layer.
type handle struct {
	node *fileNode
	pos  *position // when it was opened
	file *os.File
	keep bool
}

// Open implements vnode.Opener. The tree is read-only: EROFS for anything that
// would write.
func (f *fileNode) Open(_ context.Context, flags int) (vnode.Handle, error) {
	pos := f.at()
	if flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0 {
		return nil, errno.New(errno.ErrReadOnly, "%q is part of a read-only merged tree", pos.spot.name)
	}
	at := pos.spot
	if pos.data != nil {
		at = *pos.data
	}
	var file *os.File
	err := at.place.with(func(dir *safefs.Dir) (err error) {
		// O_NONBLOCK: a FIFO put there meanwhile must not hold us.
		file, err = dir.Open(at.name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME, 0)
		if errors.Is(err, syscall.EPERM) { // O_NOATIME is the owner's
			file, err = dir.Open(at.name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	st, err := safefs.StatFile(file)
	if err == nil && (st.Type() != unix.S_IFREG || pos.data == nil && at.place.number(&st) != f.ino) {
		err = at.stale()
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &handle{node: f, pos: pos, file: file, keep: !pos.spot.place.layer.Volatile && !at.place.layer.Volatile}, nil
}

// Flags implements vnode.Handle.
func (h *handle) Flags() vnode.OpenFlags {
	if h.keep {
		return vnode.KeepCache | vnode.NoFlush
	}
	return vnode.NoFlush
}

// ReadAt implements vnode.Handle.
func (h *handle) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	n, err := h.file.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, h.explain("read", err)
}

// passFrom is the least size in bytes of a file that is worth Backing: from here on it
// costs nobody anything, also not who reads again what the kernel has in memory (ADR
// 0045 has the figures).
const passFrom = 2 << 20

// Backing implements vnode.Backed. The kernel opens the file anew for each program,
// with that program's flags, so that O_NOATIME would be lost: the descriptor is on
// a mount of that file alone, in no namespace, that has no access times.
func (h *handle) Backing() (_ *os.File, err error) {
	st, err := safefs.StatFile(h.file)
	if err != nil || st.Size < passFrom || h.pos.data != nil && !h.keep {
		return nil, h.explain("stat", err)
	}
	conn, err := h.file.SyscallConn()
	if err != nil {
		return nil, h.explain("open again", err)
	}
	var file *os.File
	cerr := conn.Control(func(fd uintptr) { file, err = withoutAccessTimes(int(fd)) })
	return file, h.explain("open again", errors.Join(cerr, err))
}

// withoutAccessTimes opens the regular file fd for reading, on a mount of its own.
// It takes CAP_SYS_ADMIN in the mount namespace.
func withoutAccessTimes(fd int) (_ *os.File, err error) {
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("open_tree: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(tree)) }()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOATIME, Attr_clr: unix.MOUNT_ATTR__ATIME}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return nil, fmt.Errorf("mount_setattr: %w", err)
	}
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", tree), os.O_RDONLY, 0)
}

// Seek implements vnode.Seeker for SEEK_DATA and SEEK_HOLE.
func (h *handle) Seek(_ context.Context, off int64, whence int) (int64, error) {
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, syscall.EINVAL
	}
	conn, err := h.file.SyscallConn()
	if err != nil {
		return 0, h.explain("seek", err)
	}
	var n int64
	var seekErr error
	err = conn.Control(func(fd uintptr) { n, seekErr = unix.Seek(int(fd), off, whence) })
	return n, h.explain("seek", errors.Join(err, seekErr))
}

// Attr implements vnode.HandleAttr: also when the file has lost its name in a
// layer that others write to.
func (h *handle) Attr(ctx context.Context) (vnode.Attr, error) {
	if h.pos.data != nil || h.node.tree.formats&Override != 0 {
		return h.node.Attr(ctx)
	}
	st, err := safefs.StatFile(h.file)
	return attrOf(&st, h.node.ino), h.explain("stat", err)
}

// Release implements vnode.Handle.
func (h *handle) Release(context.Context) error { return h.explain("close", h.file.Close()) }

func (h *handle) explain(step string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("layer %s: %s %q: %w", h.pos.spot.place.layer.Name, step, h.pos.spot.name, err)
}
