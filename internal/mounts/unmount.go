//go:build linux

package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
)

// Unmount takes away what is mounted on target; nothing there is no error. A
// mount program's mount is taken away by fusermount3 -u where there is one.
// ErrInUse when files below it are open, unless lazy is set: then what was
// written is synced and the mount is detached, to end with its last user.
func Unmount(ctx context.Context, target string, lazy bool) error {
	is, err := IsMountPoint(target)
	if err != nil || !is {
		return err
	}
	if isFuse(target) {
		err = fusermount(ctx, target)
	}
	if err != nil || !isFuse(target) {
		err = unmountNow(target)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY) && lazy:
		return detach(target)
	case errors.Is(err, unix.EBUSY):
		return errno.New(errno.ErrInUse, "unmounting %s: files below it are in use: end what uses them, or unmount with force: %w", target, err)
	}
	return fmt.Errorf("unmounting %s: %w", target, err)
}

// Who makes a mount busy for a moment only is waited for: so often, so long.
const (
	busyTries = 20
	busyPause = 5 * time.Millisecond
)

// unmountNow is umount2; a mount that went by itself meanwhile is no error.
// What is busy is tried again for a tenth of a second: a child that is being
// started holds, until it has executed its program, descriptors that its parent
// has closed already; and a FUSE daemon may be finishing a request.
func unmountNow(target string) error {
	err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	for i := 0; i < busyTries && errors.Is(err, unix.EBUSY); i++ {
		time.Sleep(busyPause)
		err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	}
	if errors.Is(err, unix.EINVAL) {
		if is, merr := IsMountPoint(target); merr == nil && !is {
			return nil
		}
	}
	return err
}

func detach(target string) error {
	syncErr := syncfs(target)
	if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("detaching %s: %w", target, err)
	}
	if syncErr != nil && !errors.Is(syncErr, unix.ENOTCONN) {
		return fmt.Errorf("detached %s, but syncing it before: %w", target, syncErr)
	}
	return nil
}

func syncfs(dir string) (err error) {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return unix.Syncfs(int(f.Fd()))
}

// isFuse tells whether target is served by a FUSE daemon, alive or dead.
func isFuse(target string) bool {
	var st unix.Statfs_t
	err := unix.Statfs(target, &st)
	if err != nil {
		return errors.Is(err, unix.ENOTCONN)
	}
	return st.Type == unix.FUSE_SUPER_MAGIC
}

func fusermount(ctx context.Context, target string) error {
	out, err := exec.CommandContext(ctx, "fusermount3", "-u", target).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fusermount3: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// IsMountPoint tells whether path itself is the root of a mount. A mount whose
// daemon is dead is one. A path that does not exist is none.
func IsMountPoint(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return false, nil
	case errors.Is(err, unix.ENOTCONN):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("looking for a mount: %w", &os.PathError{Op: "statx", Path: path, Err: err})
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// Identity tells one mount from any other, also one that is made in its place
// later (from Linux 6.8 for sure: before, a number that is free again is given
// to a later mount).
type Identity struct {
	id, device uint64
}

// IdentityOf returns the identity of the mount whose root path is. Like
// IsMountPoint it asks no daemon. False: nothing is mounted there.
func IdentityOf(path string) (Identity, bool, error) {
	on, err := IsMountPoint(path)
	if err != nil || !on {
		return Identity{}, on, err
	}
	var st unix.Statx_t
	const flags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
	err = unix.Statx(unix.AT_FDCWD, path, flags, unix.STATX_MNT_ID|unix.STATX_MNT_ID_UNIQUE, &st)
	if errors.Is(err, unix.ENOTCONN) { // a daemon that is dead: it has no other name
		return Identity{}, true, nil
	}
	if err != nil {
		return Identity{}, true, fmt.Errorf("looking at a mount: %w", &os.PathError{Op: "statx", Path: path, Err: err})
	}
	return Identity{st.Mnt_id, unix.Mkdev(st.Dev_major, st.Dev_minor)}, true, nil
}

// Below returns the mount points strictly below dir that this process sees, in
// the order in which they were mounted. It reads lines of any length.
func Below(dir string) ([]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("reading the table of mounts: %w", err)
	}
	var below []string
	for line := range strings.Lines(string(b)) {
		// proc(5): mount ID, parent ID, major:minor, root, mount point, …
		fields := strings.SplitN(line, " ", 6)
		if len(fields) < 6 {
			continue
		}
		if at := unescapeOctal(fields[4]); strings.HasPrefix(at, strings.TrimSuffix(dir, "/")+"/") {
			below = append(below, at)
		}
	}
	return below, nil
}

// unescapeOctal undoes the kernel's \040 for space, tab, newline and backslash.
func unescapeOctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
