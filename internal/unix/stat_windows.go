package unix

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

// Stat is os.Stat, with the file's number on its volume.
func Stat(path string) (_ FileStat, err error) {
	f, err := os.Open(path)
	if err != nil {
		return FileStat{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return StatFile(f)
}

// Lstat is Stat for what is no symlink, and os.Lstat for one.
func Lstat(path string) (FileStat, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return FileStat{}, err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		s, _ := StatOf(info)
		return s, nil
	}
	return Stat(path)
}

// StatFile is the file's Stat, with its number on its volume.
func StatFile(f *os.File) (FileStat, error) {
	info, err := f.Stat()
	if err != nil {
		return FileStat{}, err
	}
	s, _ := StatOf(info)
	var d windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(windows.Handle(f.Fd()), &d); err != nil {
		return FileStat{}, err
	}
	s.Dev, s.Ino = uint64(d.VolumeSerialNumber), uint64(d.FileIndexHigh)<<32|uint64(d.FileIndexLow)
	return s, nil
}

// StatOf returns what package os has asked already. The file's number is not in
// it: Ino is the time at which it was made. Owners are 0, and Ctime is Mtime.
func StatOf(info fs.FileInfo) (FileStat, bool) {
	d, ok := info.Sys().(*syscall.Win32FileAttributeData)
	if !ok {
		return FileStat{}, false
	}
	mtime := d.LastWriteTime.Nanoseconds()
	s := FileStat{Ino: uint64(d.CreationTime.Nanoseconds()), Mode: uint32(info.Mode().Perm()), Size: info.Size(), Mtime: mtime, Ctime: mtime}
	switch {
	case info.IsDir():
		s.Mode |= S_IFDIR
	case info.Mode()&fs.ModeSymlink != 0:
		s.Mode |= S_IFLNK
	case info.Mode().IsRegular():
		s.Mode |= S_IFREG
	}
	return s, true
}
