//go:build unix && !linux

package unix

import (
	"io/fs"
	"os"
	"syscall"
)

// StatOf returns what package os has asked already.
func StatOf(info fs.FileInfo) (FileStat, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return FileStat{}, false
	}
	return FileStat{uint64(st.Dev), st.Ino, uint32(st.Mode), st.Uid, st.Gid, st.Size, st.Mtimespec.Nano(), st.Ctimespec.Nano()}, true
}

// Stat is os.Stat.
func Stat(path string) (FileStat, error) { return statInfo(os.Stat(path)) }

// Lstat is os.Lstat.
func Lstat(path string) (FileStat, error) { return statInfo(os.Lstat(path)) }

// StatFile is the file's Stat.
func StatFile(f *os.File) (FileStat, error) { return statInfo(f.Stat()) }

func statInfo(info fs.FileInfo, err error) (FileStat, error) {
	if err != nil {
		return FileStat{}, err
	}
	s, _ := StatOf(info)
	return s, nil
}
