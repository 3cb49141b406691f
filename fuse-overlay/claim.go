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
	mountVanishes = 3 * time.Second
	serverEnds    = 30 * time.Second
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
		err = w.claims.take("workdir", dir, w.top, w.ending)
	}
	if err == nil {
		err = w.claims.take("upperdir", upper, u, func() bool { return false })
	}
	return errors.Join(err, u.Close())
}

// take locks d. ending tells whether who has it is about to give it back.
func (c *claims) take(what, path string, d *safefs.Dir, ending func() bool) error {
	fd, err := d.OpenFD(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	c.held = append(c.held, fd)
	for start := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		err := lockNow(fd)
		switch {
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil // or the filesystem has no locks
		case time.Since(start) < mountVanishes:
		case !ending():
			return errno.New(errno.ErrInUse, "%s %s is used by another mount, here or in another mount namespace (such as that of a rootless plyfs mount that is older than podman's: `echo umount > containers/NAME/ctl` there): unmount that first, or give each mount an upperdir and a workdir of its own", what, path)
		case time.Since(start) > serverEnds:
			return errno.New(errno.ErrInUse, "%s %s is used by the server of a mount that is gone, which has not ended for %v: see what it waits for (the upper's filesystem?), and end it", what, path, serverEnds)
		}
	}
}

func lockNow(fd int) error {
	return retryEINTR(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
}

// ending tells whether no mount uses the stage.
func (w *work) ending() bool {
	fd, err := w.top.OpenFD(stageName, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return false
	}
	defer closeFDs([]int{fd})
	return lockNow(fd) == nil
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
