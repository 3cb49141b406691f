package fuseoverlay

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
)

// How long a mount waits for upperdir and workdir. A mount that vanishes has
// a server that does not know it yet, and then ends the requests that it is at
// work on; who unmounts and mounts again is not to be told of that.
const (
	mountVanishes = 3 * time.Second  // where nothing is known
	serverLearns  = 10 * time.Second // where its server's namespace has the mount no more
	serverEnds    = 30 * time.Second // once the server knows
)

// stand is how things are with whoever has a lock.
type stand int

const (
	unknown stand = iota
	mountedNow
	unmountedNow // in the namespace of its server: another may still have it
	ending       // the server knows that there is no mount any more
)

// claims are locks (flock) that keep mounts off each other's directories: on
// the upper and on workdir until the server has given everything back, on
// workdir's stage only while there is a mount. So others can tell a server that
// is ending from one that goes on.
type claims struct {
	held  []int // descriptors
	stage []int
}

// claim locks both directories, and sees that they are on one filesystem.
func (w *work) claim(dir, upper string) error {
	u, err := safefs.OpenRoot(upper)
	if err != nil {
		return fmt.Errorf("upperdir: %w", err)
	}
	us, err := u.Stat(".")
	ws, werr := w.top.Stat(".")
	if err = errors.Join(err, werr); err == nil && (us.Dev != ws.Dev || us.Mnt != ws.Mnt) {
		err = errno.New(errno.ErrBadValue, "upperdir %s and workdir %s are on different filesystems or mounts: put them side by side", upper, dir)
	}
	if err == nil {
		err = w.claims.take("workdir", dir, w.top, w.holder)
	}
	if err == nil {
		err = w.claims.take("upperdir", upper, u, func() (stand, string) { return unknown, "" })
	}
	return errors.Join(err, u.Close())
}

// take locks d. holder tells how things are with who has it, and who that is.
func (c *claims) take(what, path string, d *safefs.Dir, holder func() (stand, string)) error {
	fd, err := d.OpenFD(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	c.held = append(c.held, fd)
	pause := 2 * time.Millisecond
	for start := time.Now(); ; time.Sleep(pause) {
		err := lockNow(fd)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil // or the filesystem has no locks
		}
		at, who := holder()
		waited := time.Since(start)
		switch {
		case at == mountedNow:
			return errno.New(errno.ErrInUse, "%s %s is used by another mount, %s: unmount that first, or give each mount an upperdir and a workdir of its own", what, path, who)
		case at == ending && waited > serverEnds:
			return errno.New(errno.ErrInUse, "%s %s is used by the server of a mount that is gone, which has not ended for %v: see what it waits for (the upper's filesystem?), and end it", what, path, serverEnds)
		case at == unmountedNow && waited > serverLearns:
			return errno.New(errno.ErrInUse, "%s %s is used by another mount, %s, that only another mount namespace still has (a container's?): end what runs there first, or give each mount an upperdir and a workdir of its own", what, path, who)
		case at == unknown && waited > mountVanishes:
			return errno.New(errno.ErrInUse, "%s %s is used by another mount, here or in another mount namespace (such as that of a rootless plyfs mount that is older than podman's: `echo umount > containers/NAME/ctl` there): unmount that first, or give each mount an upperdir and a workdir of its own", what, path)
		}
		pause = min(2*pause, 50*time.Millisecond)
	}
}

func lockNow(fd int) error {
	return retryEINTR(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
}

// holder tells how things are with who has workdir, and who it is.
func (w *work) holder() (stand, string) {
	fd, err := w.top.OpenFD(stageName, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return unknown, ""
	}
	defer closeFDs([]int{fd})
	if lockNow(fd) == nil {
		return ending, ""
	}
	h, ok := signed(w.top)
	if !ok {
		return unknown, ""
	}
	is, known := h.mounted()
	switch who := fmt.Sprintf("on %s by %s (process %d)", h.at, h.program(), h.pid); {
	case is:
		return mountedNow, who
	case known:
		return unmountedNow, who
	}
	return unknown, ""
}

// mounted locks the stage, after the others: those who try whether it is locked
// hold it for a moment only.
func (c *claims) mounted(stage *safefs.Dir) error {
	fd, err := stage.OpenFD(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	c.stage = []int{fd}
	if err := retryEINTR(func() error { return unix.Flock(fd, unix.LOCK_EX) }); err != nil {
		return nil //nolint:nilerr // the filesystem has no locks
	}
	return nil
}

// unmounted says that the mount is gone.
func (c *claims) unmounted() {
	closeFDs(c.stage)
	c.stage = nil
}

func (c *claims) release() {
	c.unmounted()
	closeFDs(c.held)
	c.held = nil
}
