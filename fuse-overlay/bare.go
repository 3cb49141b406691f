package fuseoverlay

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// Filesystems that are mounted inside a lower layer are no part of it, as in the
// kernel's overlay: one of them may be the overlay itself. So a lower layer's
// root is opened on a clone of its mount, private and without those below it, as
// the kernel does, and shows what they cover. Where that is not permitted, what a
// mount inside the layer covers cannot be seen: such a directory is an empty one,
// with the attributes of the one that it is in, which is opened in its stead.

// bare returns dir's directory on a clone of its mount, and closes dir; or dir
// itself where there can be no clone: without CAP_SYS_ADMIN, or in a user
// namespace that may not see what is below a mount of its parent.
func bare(dir *safefs.Dir) (*safefs.Dir, error) {
	fd, err := unix.OpenTree(dir.Fd(), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT)
	if err != nil {
		return dir, nil //nolint:nilerr // it is done without
	}
	clone := os.NewFile(uintptr(fd), "clone of a layer's mount")
	attr := unix.MountAttr{Propagation: unix.MS_PRIVATE} // or later mounts come into it
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return dir, clone.Close()
	}
	own, err := safefs.FromFile(clone)
	err = errors.Join(err, clone.Close())
	if err != nil {
		if own != nil {
			err = errors.Join(err, own.Close())
		}
		return dir, err
	}
	return own, dir.Close()
}

// isBare tells whether no mount inside p's layer is to be seen.
func (p *place) isBare() bool { return p.tree.pinned && !p.writable() }

// covered tells whether st, of something in p, is another mount's than the
// layer's.
func (p *place) covered(st *safefs.Stat) bool {
	return p.isBare() && st.Mnt != p.layer.mount
}

// likeAbove gives a covered directory the attributes of dir, in which it is, but
// for its number.
func (h *hit) likeAbove(dir *safefs.Dir) error {
	st, err := dir.Stat(".")
	st.Dev, st.Ino = h.st.Dev, h.st.Ino
	h.st = st
	return err
}
