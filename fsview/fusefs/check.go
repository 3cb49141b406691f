package fusefs

import (
	"context"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

// Check lets the server decide who may do what, where the kernel's own check
// would go by owners that the mounting user does not have (a mount without
// root). IDs are those of the server's own user namespace, after Options.In.
type Check struct {
	// UID is the mounting user: everything that the server itself can do is
	// allowed, as under `podman unshare`.
	UID uint32
}

// may reports whether the caller may use in as mask says (R_OK, W_OK, X_OK).
func (s *Server) may(ctx context.Context, in *inode, mask uint32) error {
	who, ok := s.stranger(ctx)
	if !ok || mask == 0 {
		return nil
	}
	a, err := s.attrOf(ctx, in)
	if err != nil {
		return err
	}
	bits := a.Mode & 7
	switch {
	case who.UID == a.UID:
		bits = a.Mode >> 6 & 7
	case who.GID == a.GID:
		bits = a.Mode >> 3 & 7
	}
	if bits&mask != mask {
		return syscall.EACCES
	}
	return nil
}

// stranger returns the caller when it is one that must be checked.
func (s *Server) stranger(ctx context.Context) (vnode.Caller, bool) {
	if s.opts.Check == nil {
		return vnode.Caller{}, false
	}
	who, ok := vnode.CallerOf(ctx)
	return who, ok && who.UID != s.opts.Check.UID && who.UID != 0
}

// mayOwn reports whether the caller owns in.
func (s *Server) mayOwn(ctx context.Context, in *inode) error {
	who, ok := s.stranger(ctx)
	if !ok {
		return nil
	}
	a, err := s.attrOf(ctx, in)
	if err != nil {
		return err
	}
	if who.UID != a.UID {
		return errno.New(errno.ErrForbidden, "only the owner may do this")
	}
	return nil
}

// mayChange checks a setattr: a size needs leave to write, the rest ownership.
func (s *Server) mayChange(ctx context.Context, in *inode, set vnode.SetAttr, opened bool) error {
	if set.Size != nil && !opened {
		if err := s.may(ctx, in, unix.W_OK); err != nil {
			return err
		}
	}
	if set.Mode == nil && set.UID == nil && set.GID == nil && (set.Size != nil || opened) {
		return nil
	}
	if err := s.mayOwn(ctx, in); err != nil {
		return err
	}
	return s.mayGive(ctx, in, set)
}

// mayGive refuses what chown(2) refuses the owner of a file: another owner, and
// a group that is neither the file's nor the caller's own.
func (s *Server) mayGive(ctx context.Context, in *inode, set vnode.SetAttr) error {
	who, ok := s.stranger(ctx)
	if !ok {
		return nil
	}
	if set.UID != nil && *set.UID != who.UID {
		return errno.New(errno.ErrForbidden, "only the mounting user gives files to others")
	}
	if set.GID == nil || *set.GID == who.GID {
		return nil
	}
	a, err := s.attrOf(ctx, in)
	if err == nil && *set.GID != a.GID {
		err = errno.New(errno.ErrForbidden, "only the mounting user gives files to groups that the owner is not in")
	}
	return err
}

// mayRemove checks a sticky directory: only the owner of the directory or of
// the entry takes the entry away.
func (s *Server) mayRemove(ctx context.Context, dir *inode, name string) error {
	who, ok := s.stranger(ctx)
	if !ok {
		return nil
	}
	a, err := s.attrOf(ctx, dir)
	if err != nil || a.Mode&syscall.S_ISVTX == 0 || a.UID == who.UID {
		return err
	}
	d, ok := dir.node.(vnode.Directory)
	if !ok {
		return syscall.ENOTDIR
	}
	c, err := d.Lookup(ctx, name)
	if err != nil || c.Node == nil {
		return err
	}
	e, err := c.Node.Attr(ctx)
	s.table.drop(c.Node)
	if err == nil && e.UID != who.UID {
		return errno.New(errno.ErrForbidden, "%s belongs to someone else", name)
	}
	return err
}
