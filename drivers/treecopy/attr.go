//go:build linux && !portable

package treecopy

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// finishOpen gives the open file d the owner, xattrs, mode and times of s.
func finishOpen(s, d *os.File, st *unix.Stat_t) error {
	if err := unix.Fchown(int(d.Fd()), int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	if err := xattrs(fdPath(s, ""), fdPath(d, ""), unix.Listxattr, unix.Getxattr, unix.Setxattr); err != nil {
		return err
	}
	if err := unix.Fchmod(int(d.Fd()), st.Mode&0o7777); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(d, ""), times, 0); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// finishNamed is finishOpen for what cannot be opened: symlinks and special
// files.
func finishNamed(s, d *os.File, name string, st *unix.Stat_t) error {
	dfd := int(d.Fd())
	if err := unix.Fchownat(dfd, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	if err := xattrs(fdPath(s, name), fdPath(d, name), unix.Llistxattr, unix.Lgetxattr, unix.Lsetxattr); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(dfd, name, st.Mode&0o7777, 0); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(dfd, name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// fdPath names an entry of an open directory (or, without name, an open file)
// for the system calls that have no *at form; only the magic link is followed.
func fdPath(f *os.File, name string) string {
	p := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	if name != "" {
		p += "/" + name
	}
	return p
}

func xattrs(src, dst string,
	list func(string, []byte) (int, error),
	get func(string, string, []byte) (int, error),
	set func(string, string, []byte, int) error,
) error {
	names, err := sized(func(b []byte) (int, error) { return list(src, b) })
	if errors.Is(err, unix.EOPNOTSUPP) || len(names) == 0 && err == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list xattrs: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		value, err := sized(func(b []byte) (int, error) { return get(src, name, b) })
		if err != nil {
			return fmt.Errorf("xattr %s: get: %w", name, err)
		}
		err = set(dst, name, value, 0)
		if err != nil && name == "security.selinux" && errors.Is(err, unix.EOPNOTSUPP) {
			continue // labels are the policy's business where there is none
		}
		if err != nil {
			return fmt.Errorf("xattr %s: set: %w", name, err)
		}
	}
	return nil
}

// sized calls read with a buffer that is large enough.
func sized(read func([]byte) (int, error)) ([]byte, error) {
	buf := make([]byte, 1024)
	for {
		n, err := read(buf)
		if errors.Is(err, unix.ERANGE) {
			if n, err = read(nil); err != nil {
				return nil, err
			}
			buf = make([]byte, n+256)
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}
