package unix

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Stat is stat(2); the error is a bare errno.
func Stat(path string) (FileStat, error) {
	return statBy(func(st *unix.Stat_t) error { return unix.Stat(path, st) })
}

// Lstat is lstat(2); the error is a bare errno.
func Lstat(path string) (FileStat, error) {
	return statBy(func(st *unix.Stat_t) error { return unix.Lstat(path, st) })
}

// StatFile is fstat(2); the error is a bare errno.
func StatFile(f *os.File) (FileStat, error) {
	return statBy(func(st *unix.Stat_t) error { return unix.Fstat(int(f.Fd()), st) })
}

func statBy(call func(*unix.Stat_t) error) (FileStat, error) {
	var st unix.Stat_t
	for {
		err := call(&st)
		switch {
		case err == nil:
			return FileStat{st.Dev, st.Ino, st.Mode, st.Uid, st.Gid, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, nil
		case !errors.Is(err, unix.EINTR):
			return FileStat{}, err
		}
	}
}

// StatOf returns what package os has asked already.
func StatOf(info fs.FileInfo) (FileStat, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return FileStat{}, false
	}
	return FileStat{st.Dev, st.Ino, st.Mode, st.Uid, st.Gid, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, true
}
