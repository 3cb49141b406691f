package lockfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// lockOffset is where the locked byte is: locks of this system forbid others
// to read what they cover, and the token must stay readable.
const lockOffset = 1 << 30

// TryLock tries once to lock an open file, for writing or for reading, with
// LockFileEx. It is false when some other lock is in the way. Closing fd ends
// it.
func TryLock(fd *os.File, write bool) (bool, error) {
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if write {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	at := &windows.Overlapped{Offset: lockOffset}
	err := windows.LockFileEx(windows.Handle(fd.Fd()), flags, 0, 1, 0, at)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, windows.ERROR_LOCK_VIOLATION), errors.Is(err, windows.ERROR_IO_PENDING):
		return false, nil
	}
	return false, fmt.Errorf("lock %s: %w", fd.Name(), err)
}

// holderOf tells whether somebody is in the way of a write lock on an open
// file; the system does not say who. A lock that only reads counts as writing.
func holderOf(fd *os.File) (pid int, write, held bool, err error) {
	got, err := TryLock(fd, true)
	if err != nil || !got {
		return 0, true, err == nil, err
	}
	at := &windows.Overlapped{Offset: lockOffset}
	return 0, false, false, windows.UnlockFileEx(windows.Handle(fd.Fd()), 0, 1, 0, at)
}

// alive tells whether a process exists.
func alive(pid int) bool {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return errors.Is(err, windows.ERROR_ACCESS_DENIED)
	}
	var code uint32
	err = windows.GetExitCodeProcess(h, &code)
	const stillActive = 259
	return errors.Join(err, windows.CloseHandle(h)) == nil && code == stillActive
}

// linked is true: a file that is open keeps its name.
func linked(*os.File) bool { return true }
