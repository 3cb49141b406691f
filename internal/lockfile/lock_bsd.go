//go:build unix && !linux

package lockfile

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// TryLock tries once to lock the whole of an open file, for writing or for
// reading. It is false when some other lock is in the way. Closing the last
// descriptor of fd's description ends it.
//
// The lock is one of flock(2): on the BSDs those belong to the open file, as
// Linux's open-file-description locks do, and conflict with the POSIX locks
// that the tools take (flock(2) there: "compatible").
func TryLock(fd *os.File, write bool) (bool, error) {
	how := unix.LOCK_SH | unix.LOCK_NB
	if write {
		how = unix.LOCK_EX | unix.LOCK_NB
	}
	for {
		err := unix.Flock(int(fd.Fd()), how)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case errors.Is(err, unix.EINTR):
		default:
			return false, fmt.Errorf("lock %s: %w", fd.Name(), err)
		}
	}
}

// holderOf asks the kernel who is in the way of a write lock on an open file:
// its process, 0 where the kernel does not name it, and whether it writes.
func holderOf(fd *os.File) (pid int, write, held bool, err error) {
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(fd.Fd(), unix.F_GETLK, &lk); err != nil {
		return 0, false, false, err
	}
	return max(int(lk.Pid), 0), lk.Type == unix.F_WRLCK, lk.Type != unix.F_UNLCK, nil
}
