//go:build linux

// Package spread keeps what is made and removed often, by tests and benchmarks,
// from slowing down what comes after it on ext4.
//
// An ext4 without a journal does not give an inode out again for half a minute, and
// looks at each that was freed in a group before it finds one for a new file: after
// a removal of thousands, a creation there takes ten times as long.
package spread

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// topDir is FS_TOPDIR_FL (linux/fs.h).
const topDir = 0x20000

// Dirs has ext4 put the directories that are made in dir far from each other, as
// chattr +T does. Where dir cannot have the mark, on another filesystem, the error is
// the kernel's.
func Dirs(dir string) (err error) {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fd := int(f.Fd())
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return fmt.Errorf("flags of %s: %w", dir, err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags|topDir)); err != nil {
		return fmt.Errorf("mark %s as a top of hierarchies: %w", dir, err)
	}
	return nil
}
