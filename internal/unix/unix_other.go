//go:build !linux

package unix

import (
	"os"
	"syscall"
)

// File types, in a mode.
const (
	S_IFMT   = 0xf000
	S_IFREG  = 0x8000
	S_IFDIR  = 0x4000
	S_IFLNK  = 0xa000
	S_IFCHR  = 0x2000
	S_IFBLK  = 0x6000
	S_IFIFO  = 0x1000
	S_IFSOCK = 0xc000
)

// Flags of open(2) that every system has.
const (
	O_RDONLY = os.O_RDONLY
	O_WRONLY = os.O_WRONLY
	O_RDWR   = os.O_RDWR
	O_CREAT  = os.O_CREATE
	O_EXCL   = os.O_EXCL
	O_TRUNC  = os.O_TRUNC
)

// Flags of setxattr(2) and lseek(2), with Linux's numbers: nothing here takes
// them.
const (
	XATTR_CREATE  = 1
	XATTR_REPLACE = 2
	SEEK_DATA     = 3
	SEEK_HOLE     = 4
)

// Mkdev makes a device number of Linux's form.
func Mkdev(major, minor uint32) uint64 {
	return uint64(major&0xfffff000)<<32 | uint64(major&0xfff)<<8 | uint64(minor&0xffffff00)<<12 | uint64(minor&0xff)
}

// Major returns the major part of a device number.
func Major(dev uint64) uint32 { return uint32(dev>>32)&0xfffff000 | uint32(dev>>8)&0xfff }

// Minor returns the minor part of a device number.
func Minor(dev uint64) uint32 { return uint32(dev>>12)&0xffffff00 | uint32(dev)&0xff }

// Seek finds no holes here.
func Seek(int, int64, int) (int64, error) { return 0, syscall.EINVAL }

// Fsetxattr sets no attributes here.
func Fsetxattr(int, string, []byte, int) error { return syscall.EOPNOTSUPP }

// ReadOnlyMount is false: nothing is mounted here.
func ReadOnlyMount(string) bool { return false }
