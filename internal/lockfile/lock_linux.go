package lockfile

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// TryLock tries once to lock the whole of an open file, for writing or for
// reading, with an open-file-description lock. It is false when some other
// lock is in the way. Closing the last descriptor of fd's description ends it.
func TryLock(fd *os.File, write bool) (bool, error) {
	lk := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart}
	if write {
		lk.Type = unix.F_WRLCK
	}
	for {
		err := unix.FcntlFlock(fd.Fd(), unix.F_OFD_SETLK, &lk)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
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
	if err := unix.FcntlFlock(fd.Fd(), unix.F_OFD_GETLK, &lk); err != nil {
		return 0, false, false, err
	}
	return max(int(lk.Pid), 0), lk.Type == unix.F_WRLCK, lk.Type != unix.F_UNLCK, nil
}
