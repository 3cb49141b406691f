//go:build linux && !portable

package safefs

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Stat returns the attributes of name ("." for d itself), not following it.
func (d *Dir) Stat(name string) (Stat, error) {
	if err := checkOrDot("stat", name); err != nil {
		return Stat{}, err
	}
	if name == "." {
		name = "" // the descriptor itself: half the cost
	}
	return statAt(d.fd, name, unix.AT_SYMLINK_NOFOLLOW)
}

// Known is Stat without a question to who serves the file, of a FUSE or network
// filesystem: its attributes there may be old ones, but for Dev, Mnt and the type. On
// others it is Stat. Without statx(2), which has Mnt, it is Stat everywhere.
func (d *Dir) Known(name string) (Stat, error) {
	if err := check("stat", name); err != nil {
		return Stat{}, err
	}
	if !statxWorks() {
		return oldStat(d.fd, name, unix.AT_SYMLINK_NOFOLLOW)
	}
	return statAt(d.fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC)
}

// statAt works on (fd, name), or on fd itself with an empty name.
func statAt(fd int, name string, flags int) (Stat, error) {
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if !statxWorks() {
		return oldStat(fd, name, flags)
	}
	var x unix.Statx_t
	const want = unix.STATX_BASIC_STATS | unix.STATX_BTIME | unix.STATX_MNT_ID
	for {
		err := statx(fd, name, flags|unix.AT_NO_AUTOMOUNT, want, &x)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return Stat{}, fail("stat", name, err)
		}
		return fromStatx(&x), nil
	}
}

// statxWorks probes statx once: old seccomp filters refuse it.
var statxWorks = sync.OnceValue(func() bool { //nolint:gochecknoglobals // a probe made once, never assigned
	var x unix.Statx_t
	return unix.Statx(unix.AT_FDCWD, "/", 0, unix.STATX_BASIC_STATS, &x) == nil
})

func fromStatx(x *unix.Statx_t) Stat {
	s := Stat{
		Dev: unix.Mkdev(x.Dev_major, x.Dev_minor), Ino: x.Ino,
		Mode: uint32(x.Mode), Nlink: x.Nlink, UID: x.Uid, GID: x.Gid,
		Rdev: unix.Mkdev(x.Rdev_major, x.Rdev_minor),
		Size: x.Size, Blocks: x.Blocks, Blksize: x.Blksize,
		Atime: stamp(x.Atime), Mtime: stamp(x.Mtime), Ctime: stamp(x.Ctime),
	}
	if x.Mask&unix.STATX_BTIME != 0 {
		s.Btime = stamp(x.Btime)
	}
	if x.Mask&unix.STATX_MNT_ID != 0 {
		s.Mnt = x.Mnt_id
	}
	return s
}

func stamp(t unix.StatxTimestamp) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

func oldStat(fd int, name string, flags int) (Stat, error) {
	var raw unix.Stat_t
	if err := retry(func() error { return unix.Fstatat(fd, name, &raw, flags) }); err != nil {
		return Stat{}, fail("stat", name, err)
	}
	return Stat{
		Dev: raw.Dev, Ino: raw.Ino, Mode: raw.Mode, Nlink: uint32(raw.Nlink),
		UID: raw.Uid, GID: raw.Gid, Rdev: raw.Rdev,
		Size: uint64(raw.Size), Blocks: uint64(raw.Blocks), Blksize: uint32(raw.Blksize),
		Atime: time.Unix(raw.Atim.Unix()), Mtime: time.Unix(raw.Mtim.Unix()), Ctime: time.Unix(raw.Ctim.Unix()),
	}, nil
}

// Readlink returns the text of the symlink name. EINVAL when it is none.
func (d *Dir) Readlink(name string) (string, error) {
	if err := check("readlink", name); err != nil {
		return "", err
	}
	target, err := readlinkAt(d.fd, name)
	return target, fail("readlink", name, err)
}

// readlinkAt reads the text of (fd, name), or of fd itself with an empty name.
func readlinkAt(fd int, name string) (string, error) {
	for size := 256; ; size *= 2 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(fd, name, buf)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
		if size > 1<<16 {
			return "", syscall.ENAMETOOLONG
		}
	}
}

// StatFile returns the attributes of an open file.
func StatFile(f *os.File) (Stat, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return Stat{}, fail("stat", f.Name(), err)
	}
	var s Stat
	var statErr error
	err = conn.Control(func(fd uintptr) { s, statErr = statAt(int(fd), "", 0) })
	return s, errors.Join(err, statErr)
}

// StatFD is StatFile for a bare descriptor.
func StatFD(fd int) (Stat, error) { return statAt(fd, "", 0) }
