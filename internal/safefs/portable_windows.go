package safefs

import (
	"io/fs"
	"os"
	"syscall"
	"time"
)

// syncOpen has nothing to do: the system keeps a journal of its directories.
func syncOpen(*os.File) error { return nil }

// lchown fails: files have no owners of this kind.
func lchown(*os.Root, string, int, int) error { return syscall.EPERM }

// linkTimes leaves a symlink's times: they cannot be set by name.
func linkTimes(*os.Root, string, time.Time, time.Time) error { return nil }

// fromInfo is what the system tells of a file: no owner, no inode number.
func fromInfo(info fs.FileInfo) Stat {
	s := general(info)
	if d, ok := info.Sys().(*syscall.Win32FileAttributeData); ok {
		s.Atime = time.Unix(0, d.LastAccessTime.Nanoseconds())
		s.Btime = time.Unix(0, d.CreationTime.Nanoseconds())
	}
	return s
}

// HasOwners tells whether files have a user and a group on this system.
const HasOwners = false
