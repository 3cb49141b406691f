package fuseoverlay

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// giveTo calls chown with the owner that a file is to have. Where every file is
// shown with one owner, or group, a server that may not give files away leaves
// them its own: nobody sees the difference, and nothing else could be changed
// on its behalf. lost are the set-ID bits that would then be another's.
func (o *Overlay) giveTo(uid, gid int, chown func(uid, gid int) error) (lost uint32, err error) {
	squashU, squashG := o.c.SquashUID != nil, o.c.SquashGID != nil
	squash := squashU || squashG
	if err = chown(uid, gid); !squash || !isNotGiven(err) {
		return 0, err
	}
	err = nil
	if uid >= 0 {
		if err = chown(uid, -1); squashU && isNotGiven(err) {
			lost, err = unix.S_ISUID, nil
		}
	}
	if gid >= 0 && err == nil {
		if err = chown(-1, gid); squashG && isNotGiven(err) {
			lost, err = lost|unix.S_ISGID, nil
		}
	}
	return lost, err
}

// isNotGiven tells whether chown failed since we may not give files to that ID,
// or since our user namespace does not have it.
func isNotGiven(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL)
}
