package fuseoverlay

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
)

// Filesystems that are mounted inside a layer are no part of it, as in the
// kernel's overlay: one of them may be the overlay itself. So a layer's root is
// opened on a clone of its mount, private and without those below it, as the
// kernel does, and shows what they cover; upper and workdir on one clone, since
// nothing is renamed or linked from one mount to another. Where that is not
// permitted, what a mount inside the layer covers cannot be seen: such a directory
// of a lower layer is an empty one, with the attributes of the one that it is in,
// which is opened in its stead; of the upper, and for files, it is an error. Nobody
// is asked then for what is mounted there: it may be the overlay itself, which would
// wait for itself.

// dropping closes descriptors behind everybody's back. With its first descriptor a
// clone leaves its namespace, for which the kernel waits until no processor can be at
// work on it any more (0.1 ms and more): the next layer can be opened meanwhile. The
// zero value is ready; nil closes at once.
type dropping struct {
	mu    sync.Mutex
	files []*os.File // guarded by mu
	idle  *sync.Cond // of mu; nil: nobody is at work
}

// drop closes f, soon. It is O_PATH: there is nothing to lose.
func (d *dropping) drop(f *os.File) {
	if d == nil {
		_ = f.Close()
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files = append(d.files, f)
	if d.idle == nil {
		d.idle = sync.NewCond(&d.mu)
		go d.work()
	}
}

// work closes one after the other, until there is none.
func (d *dropping) work() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.files) > 0 {
		files := d.files
		d.files = nil
		d.mu.Unlock()
		for _, f := range files {
			_ = f.Close()
		}
		d.mu.Lock()
	}
	d.idle.Broadcast()
	d.idle = nil
}

// wait waits until all are closed.
func (d *dropping) wait() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.idle != nil {
		d.idle.Wait()
	}
}

// bare returns dir's directory on a clone of its mount, and closes dir; or dir
// itself where there can be no clone: without CAP_SYS_ADMIN, or in a user
// namespace that may not see what is below a mount of its parent.
func bare(dir *safefs.Dir, clones *dropping) (*safefs.Dir, error) {
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
	clones.drop(clone)
	if err != nil {
		return dir, err
	}
	return own, dir.Close()
}

// together opens upper and work, of one mount, on one clone of it; nil where
// there can be none. Paths are absolute and without symlinks.
func together(upper, work string, clones *dropping) (u, w *safefs.Dir, err error) {
	above := upper
	for above != "/" && !strings.HasPrefix(work+"/", above+"/") {
		above = filepath.Dir(above)
	}
	given, err := safefs.OpenRoot(above)
	if err != nil {
		return nil, nil, nil //nolint:nilerr // it may be opened through, but not itself
	}
	base, err := bare(given, clones)
	if err != nil {
		return nil, nil, errors.Join(err, base.Close())
	}
	if base != given {
		if u, err = sameBelow(base, above, upper); u != nil {
			w, err = sameBelow(base, above, work)
		}
	}
	if err = errors.Join(err, base.Close()); w == nil && u != nil {
		err, u = errors.Join(err, u.Close()), nil
	}
	return u, w, err
}

// sameBelow opens dir, which is above or in it, below base, the clone of above. Nil
// when it is not the same directory there: another mount is between them.
func sameBelow(base *safefs.Dir, above, dir string) (*safefs.Dir, error) {
	rel, err := filepath.Rel(above, dir)
	if err != nil {
		return nil, err
	}
	var want unix.Stat_t
	if err := unix.Stat(dir, &want); err != nil {
		return nil, err
	}
	d, err := base.OpenDirAt(rel, safefs.NoSymlinks)
	if err != nil {
		return nil, nil //nolint:nilerr // it is not there
	}
	st, err := d.Stat(".")
	if err != nil || st.Dev != want.Dev || st.Ino != want.Ino {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// covered tells whether st, of something in p, is another mount's than the
// layer's.
func (p *place) covered(st *safefs.Stat) bool {
	return p.tree.pinned && st.Mnt != p.layer.mount
}

// stat returns the attributes of name in d, p's directory. Of what is covered they
// are what the kernel knows of it.
func (p *place) stat(d *safefs.Dir, name string) (safefs.Stat, error) {
	if !p.tree.pinned || p.layer.cloned {
		return d.Stat(name)
	}
	st, err := d.Known(name)
	if err != nil || p.layer.exact || p.covered(&st) { // exact: a local filesystem, where known is true
		return st, err
	}
	return d.Stat(name)
}

// errCovered says what is in the way of name.
func (p *place) errCovered(name string) error {
	return errno.New(errno.ErrInUse, "layer %s: another filesystem is mounted on %q, and what it covers cannot be seen without CAP_SYS_ADMIN: unmount that", p.layer.Name, name)
}

// likeAbove gives a covered directory the attributes of dir, in which it is, but
// for its number.
func (h *hit) likeAbove(dir *safefs.Dir) error {
	st, err := dir.Stat(".")
	st.Dev, st.Ino = h.st.Dev, h.st.Ino
	h.st = st
	return err
}

// shownBy is where the file is that has the attributes of h.
func (h *hit) shownBy() spot {
	if h.covered {
		return spot{h.place, "."}
	}
	return h.spot
}
