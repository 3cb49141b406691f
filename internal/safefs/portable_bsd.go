//go:build unix && (!linux || portable)

package safefs

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func syncOpen(f *os.File) error { return f.Sync() }

func lchown(root *os.Root, name string, uid, gid int) error { return root.Lchown(name, uid, gid) }

// linkTimes sets the times of a symlink.
func linkTimes(root *os.Root, name string, atime, mtime time.Time) error {
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	ts := make([]unix.Timespec, 0, 2)
	for _, t := range []time.Time{atime, mtime} {
		if t.IsZero() {
			info, err := root.Lstat(name)
			if err != nil {
				return errors.Join(err, dir.Close())
			}
			t = info.ModTime()
		}
		spec, err := unix.TimeToTimespec(t)
		if err != nil {
			return errors.Join(err, dir.Close())
		}
		ts = append(ts, spec)
	}
	err = unix.UtimesNanoAt(int(dir.Fd()), name, ts, unix.AT_SYMLINK_NOFOLLOW)
	return errors.Join(err, dir.Close())
}

// fromInfo is what the system tells of a file.
func fromInfo(info fs.FileInfo) Stat {
	s := general(info)
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return s
	}
	s.Dev, s.Ino, s.Nlink = uint64(st.Dev), st.Ino, uint32(st.Nlink)
	s.UID, s.GID = st.Uid, st.Gid
	s.Blocks, s.Blksize = uint64(st.Blocks), uint32(st.Blksize)
	s.Atime, s.Ctime, s.Btime = times(st)
	return s
}
