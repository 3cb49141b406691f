//go:build linux && !portable

package safefs

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// Mkdir makes the directory name; mode is less the umask.
func (d *Dir) Mkdir(name string, mode uint32) error {
	if err := check("mkdir", name); err != nil {
		return err
	}
	return fail("mkdir", name, retry(func() error { return unix.Mkdirat(d.fd, name, mode) }))
}

// Mknod makes a file of mode's type: a device with number dev (unix.Mkdev), a
// FIFO, a socket or an empty regular file. mode is less the umask.
func (d *Dir) Mknod(name string, mode uint32, dev uint64) error {
	if err := check("mknod", name); err != nil {
		return err
	}
	return fail("mknod", name, retry(func() error { return unix.Mknodat(d.fd, name, mode, int(dev)) }))
}

// Symlink makes the symlink name with the given text, whatever it says.
func (d *Dir) Symlink(target, name string) error {
	if err := check("symlink", name); err != nil {
		return err
	}
	return fail("symlink", name, retry(func() error { return unix.Symlinkat(target, d.fd, name) }))
}

// Link gives d's file name, a symlink's own too, the further name newName in to.
func (d *Dir) Link(name string, to *Dir, newName string) error {
	if err := errors.Join(check("link", name), check("link", newName)); err != nil {
		return err
	}
	return fail("link", newName, retry(func() error { return unix.Linkat(d.fd, name, to.fd, newName, 0) }))
}

// linkFd links a descriptor. AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH (or, from
// 6.10 on, the credentials of the opening); /proc does not.
func linkFd(fd int, to *Dir, newName string) error {
	if err := check("link", newName); err != nil {
		return err
	}
	err := retry(func() error { return unix.Linkat(fd, "", to.fd, newName, unix.AT_EMPTY_PATH) })
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM) {
		path := procFd(fd)
		err = retry(func() error {
			return unix.Linkat(unix.AT_FDCWD, path, to.fd, newName, unix.AT_SYMLINK_FOLLOW)
		})
	}
	return fail("link", newName, err)
}

func procFd(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// Unlink removes name, which is not a directory.
func (d *Dir) Unlink(name string) error {
	if err := check("unlink", name); err != nil {
		return err
	}
	return fail("unlink", name, retry(func() error { return unix.Unlinkat(d.fd, name, 0) }))
}

// Rmdir removes the empty directory name.
func (d *Dir) Rmdir(name string) error {
	if err := check("rmdir", name); err != nil {
		return err
	}
	return fail("rmdir", name, retry(func() error { return unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR) }))
}

// Rename moves d's name to newName in to. Flags are renameat2's
// (RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT).
func (d *Dir) Rename(name string, to *Dir, newName string, flags uint) error {
	if err := errors.Join(check("rename", name), check("rename", newName)); err != nil {
		return err
	}
	return fail("rename", newName, retry(func() error {
		if flags == 0 {
			return unix.Renameat(d.fd, name, to.fd, newName)
		}
		return unix.Renameat2(d.fd, name, to.fd, newName, flags)
	}))
}
