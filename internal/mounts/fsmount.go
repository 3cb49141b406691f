//go:build linux

package mounts

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// errNoDescriptors says that the kernel cannot take layers as descriptors.
var errNoDescriptors = errors.New("kernel takes no layers as descriptors")

// mountByDescriptors mounts p with fsopen(2), layers as descriptors.
func mountByDescriptors(p Plan) (err error) {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) {
		return errNoDescriptors
	}
	if err != nil {
		return fmt.Errorf("fsopen: %w", err)
	}
	fs := os.NewFile(uintptr(fd), "overlay")
	defer func() { err = errors.Join(err, fs.Close()) }()
	if isLegacy(fd) {
		return errNoDescriptors
	}
	if err := configure(fd, p); err != nil {
		return reason(fd, err)
	}
	mfd, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, attrOf(p.Flags))
	if err != nil {
		return reason(fd, fmt.Errorf("fsmount: %w", err))
	}
	m := os.NewFile(uintptr(mfd), p.Target)
	defer func() { err = errors.Join(err, m.Close()) }()
	if err := unix.MoveMount(mfd, "", unix.AT_FDCWD, p.Target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

// isLegacy tells whether the kernel's overlay is older than fsopen (before Linux
// 6.5): a string is put together of whatever options it is given then, and
// refused when the mount is made. Descriptors are EOPNOTSUPP, and else a word
// that is not known.
func isLegacy(fd int) bool {
	legacy := errors.Is(unix.FsconfigSetFd(fd, "plyfs-asks", fd), unix.EOPNOTSUPP)
	_ = reason(fd, nil) // the kernel's words about the question
	return legacy
}

// configure gives the layers and options to the configuration descriptor fd.
func configure(fd int, p Plan) error {
	if err := unix.FsconfigSetString(fd, "source", "overlay"); err != nil {
		return fmt.Errorf("option source: %w", err)
	}
	for i, dir := range p.Lowers {
		err := setLower(fd, dir)
		if i == 0 && errors.Is(err, unix.EINVAL) {
			return errNoDescriptors
		}
		if err != nil {
			return err
		}
	}
	if p.Upper != "" {
		err := setLayer(fd, "upperdir", p.Upper)
		if errors.Is(err, unix.EINVAL) { // Linux 6.8 to 6.12 take lowers one by one, but no descriptors
			return errNoDescriptors
		}
		if err != nil {
			return err
		}
		if err := setLayer(fd, "workdir", p.Work); err != nil {
			return err
		}
	}
	for _, o := range p.Options {
		if err := setOption(fd, o); err != nil {
			return err
		}
	}
	if p.Flags&unix.MS_RDONLY != 0 {
		if err := unix.FsconfigSetFlag(fd, "ro"); err != nil {
			return fmt.Errorf("option ro: %w", err)
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	return nil
}

// maxValue is the longest string that fsconfig(2) takes, in bytes.
const maxValue = 255

// setLower adds a lower by its path, which is then shown as it was given (the
// peers' short links), or by descriptor when the path is too long.
func setLower(fd int, dir string) error {
	if len(dir) > maxValue {
		return setLayer(fd, "lowerdir+", dir)
	}
	if err := unix.FsconfigSetString(fd, "lowerdir+", dir); err != nil {
		return fmt.Errorf("lowerdir: %w", &os.PathError{Op: "add", Path: dir, Err: err})
	}
	return nil
}

func setLayer(fd int, key, dir string) (err error) {
	dfd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", strings.TrimSuffix(key, "+"), &os.PathError{Op: "open", Path: dir, Err: err})
	}
	defer func() { err = errors.Join(err, unix.Close(dfd)) }()
	if err := unix.FsconfigSetFd(fd, key, dfd); err != nil {
		return fmt.Errorf("%s %s: %w", strings.TrimSuffix(key, "+"), dir, err)
	}
	return nil
}

func setOption(fd int, o string) error {
	key, value, has := strings.Cut(o, "=")
	var err error
	if has {
		err = unix.FsconfigSetString(fd, key, strings.Trim(value, `"`))
	} else {
		err = unix.FsconfigSetFlag(fd, key)
	}
	if err != nil {
		return fmt.Errorf("option %q: %w", o, err)
	}
	return nil
}

// reason adds to err what the kernel logged on the configuration descriptor.
func reason(fd int, err error) error {
	if errors.Is(err, errNoDescriptors) {
		return err
	}
	buf := make([]byte, 4096)
	var words []string
	for range 16 {
		n, rerr := unix.Read(fd, buf)
		if rerr != nil || n <= 2 {
			break
		}
		words = append(words, strings.TrimSpace(string(buf[2:n])))
	}
	if err == nil || len(words) == 0 {
		return err
	}
	return fmt.Errorf("%w (kernel: %s)", err, strings.Join(words, "; "))
}
