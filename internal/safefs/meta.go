//go:build linux && !portable

package safefs

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Chown sets the owner of name ("." for d itself), a symlink's own too. An ID
// of -1 is left alone. The kernel clears set-ID bits and capabilities.
func (d *Dir) Chown(name string, uid, gid int) error {
	if err := checkOrDot("chown", name); err != nil {
		return err
	}
	return fail("chown", name, retry(func() error {
		return unix.Fchownat(d.fd, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	}))
}

// Chmod sets the permission bits (07777) of name ("." for d itself). A symlink
// has none: EOPNOTSUPP.
func (d *Dir) Chmod(name string, mode uint32) error {
	if err := checkOrDot("chmod", name); err != nil {
		return err
	}
	return fail("chmod", name, d.chmod(name, mode, fchmodat2Works()))
}

// fchmodat2Works probes fchmodat2 (Linux 6.6) once, with no name: EFAULT says
// that the call is there.
var fchmodat2Works = sync.OnceValue(func() bool { //nolint:gochecknoglobals // a probe made once, never assigned
	_, _, e := unix.Syscall6(unix.SYS_FCHMODAT2, ^uintptr(0), 0, 0, 0, 0, 0)
	return e == unix.EFAULT
})

func (d *Dir) chmod(name string, mode uint32, direct bool) error {
	if direct {
		return retry(func() error { return unix.Fchmodat(d.fd, name, mode&0o7777, unix.AT_SYMLINK_NOFOLLOW) })
	}
	fd, err := openRetry(d.fd, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	r := Ref{fd: fd}
	err = r.chmod(mode)
	_ = unix.Close(fd) // O_PATH: nothing to lose
	return err
}

// Utimens sets the times of name ("." for d itself), a symlink's own too.
// A zero Time leaves that time alone.
func (d *Dir) Utimens(name string, atime, mtime time.Time) error {
	if err := checkOrDot("utimens", name); err != nil {
		return err
	}
	ts := [2]unix.Timespec{timespec(atime), timespec(mtime)}
	return fail("utimens", name, retry(func() error {
		return unix.UtimesNanoAt(d.fd, name, ts[:], unix.AT_SYMLINK_NOFOLLOW)
	}))
}

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}
