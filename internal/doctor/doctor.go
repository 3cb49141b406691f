package doctor

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Grade is how well a thing is.
type Grade uint8

// The grades.
const (
	// OK is as it should be.
	OK Grade = iota
	// Warn means that something works less well, or not for everyone.
	Warn
	// Fail means that plyfs cannot do its work.
	Fail
)

// String returns the word that is printed.
func (g Grade) String() string { return [...]string{"ok", "warn", "fail"}[g] }

// Finding is one line: what was looked at, how it is, and what to do.
type Finding struct {
	Grade Grade
	What  string
	Text  string
}

// Machine says where to look; the paths can lead elsewhere in tests.
type Machine struct {
	// Root is put before the paths of the system's files.
	Root string
	// UID is who will use plyfs.
	UID int
	// LookPath finds programs.
	LookPath func(string) (string, error)
	// GraphRoot is the directory of the store, which need not be there.
	GraphRoot string
}

// Here is this machine and user.
func Here(graphRoot string) Machine {
	return Machine{UID: os.Geteuid(), LookPath: exec.LookPath, GraphRoot: graphRoot}
}

// Examine looks at everything.
func (m Machine) Examine() []Finding {
	list := []Finding{m.device(), m.helper(), m.namespaces(), m.subordinates(), m.overlay()}
	list = append(list, m.filesystem()...)
	return append(list, m.mounts()...)
}

func (m Machine) path(p string) string { return m.Root + p }

func ok(what, format string, args ...any) Finding {
	return Finding{OK, what, fmt.Sprintf(format, args...)}
}

func warn(what, format string, args ...any) Finding {
	return Finding{Warn, what, fmt.Sprintf(format, args...)}
}

func fail(what, format string, args ...any) Finding {
	return Finding{Fail, what, fmt.Sprintf(format, args...)}
}

func (m Machine) device() Finding {
	const what = "device"
	path := m.path("/dev/fuse")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fail(what, "there is no %s: load the kernel's module (modprobe fuse), or give the container that device; `plyfs ls` and its like need none", path)
	case errors.Is(err, os.ErrPermission):
		return fail(what, "%s may not be opened by this user: chmod 0666 %s as root", path, path)
	case err != nil:
		return fail(what, "%s cannot be opened (%v): load the kernel's module (modprobe fuse)", path, errors.Unwrap(err))
	}
	if err := f.Close(); err != nil {
		return warn(what, "%s: %v", path, err)
	}
	return ok(what, "%s can be opened", path)
}

func (m Machine) helper() Finding {
	const what = "fusermount3"
	path, err := m.LookPath("fusermount3")
	switch {
	case err != nil && m.UID == 0:
		return ok(what, "not there, and not needed by root")
	case err != nil:
		return fail(what, "not in the path: install the package fuse3; an ordinary user cannot mount without it")
	}
	fi, err := os.Stat(path)
	if err != nil {
		return fail(what, "%s: %v: install the package fuse3 again", path, err)
	}
	if m.UID != 0 && fi.Mode()&os.ModeSetuid == 0 {
		return warn(what, "%s is not set-user-ID root: if mounting fails, chmod u+s it as root", path)
	}
	return ok(what, "%s", path)
}

// number reads a file of one number; false if it is not there.
func (m Machine) number(path string) (int, bool) {
	v, err := os.ReadFile(m.path(path))
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(v)))
	return n, err == nil
}

func (m Machine) namespaces() Finding {
	const what = "user namespaces"
	grade := Fail
	if m.UID == 0 {
		grade = Warn
	}
	switch n, known := m.number("/proc/sys/user/max_user_namespaces"); {
	case !known:
		return Finding{grade, what, "the kernel has none: only root can use plyfs in full"}
	case n == 0:
		return Finding{grade, what, "none may be made: sysctl user.max_user_namespaces=15000"}
	}
	if n, known := m.number("/proc/sys/kernel/unprivileged_userns_clone"); known && n == 0 {
		return Finding{grade, what, "only root may make one: sysctl kernel.unprivileged_userns_clone=1"}
	}
	if n, known := m.number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"); known && n == 1 {
		return warn(what, "AppArmor keeps ordinary users from using one in full: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a profile for plyfs")
	}
	return ok(what, "ordinary users can make them")
}

func (m Machine) subordinates() Finding {
	const what = "subordinate IDs"
	if m.UID == 0 {
		return ok(what, "not needed by root")
	}
	names := []string{strconv.Itoa(m.UID)}
	if u, err := user.LookupId(names[0]); err == nil {
		names = append(names, u.Username)
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		if !m.listed(file, names) {
			return warn(what, "%s has no line for %s, so that only one ID can be used: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s, as root",
				m.path(file), names[len(names)-1], names[len(names)-1])
		}
	}
	for _, program := range []string{"newuidmap", "newgidmap"} {
		if _, err := m.LookPath(program); err != nil {
			return warn(what, "there is no %s to use them with: install the package uidmap", program)
		}
	}
	return ok(what, "there are some for %s", names[len(names)-1])
}

func (m Machine) listed(file string, names []string) bool {
	v, err := os.ReadFile(m.path(file))
	if err != nil {
		return false
	}
	for l := range strings.Lines(string(v)) {
		owner, _, _ := strings.Cut(l, ":")
		for _, n := range names {
			if owner == n {
				return true
			}
		}
	}
	return false
}

func (m Machine) overlay() Finding {
	const what = "kernel overlay"
	f, err := os.Open(m.path("/proc/filesystems"))
	if err != nil {
		return warn(what, "not known: %v", err)
	}
	defer f.Close() //nolint:errcheck // read only
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if strings.TrimSpace(strings.TrimPrefix(lines.Text(), "nodev")) == "overlay" {
			return ok(what, "the kernel has it")
		}
	}
	return warn(what, "the kernel has none: modprobe overlay, or set a mount program in storage.conf; looking at stores needs none")
}

// mountAnswers is how long a mount has to say that it lives.
const mountAnswers = 2 * time.Second

// mounts looks for control filesystems whose server is gone.
func (m Machine) mounts() []Finding {
	const what = "mounts"
	f, err := os.Open(m.path("/proc/self/mountinfo"))
	if err != nil {
		return []Finding{warn(what, "not known: %v", err)}
	}
	defer f.Close() //nolint:errcheck // read only
	list, err := mountinfo.GetMountsFromReader(f, mountinfo.FSTypeFilter("fuse.plyfs"))
	if err != nil {
		return []Finding{warn(what, "not known: %v", err)}
	}
	var found []Finding
	alive := 0
	for _, mnt := range list {
		switch err := answer(mnt.Mountpoint); {
		case errors.Is(err, syscall.ENOTCONN):
			found = append(found, fail(what, "the server of %s has died: plyfs umount %s", mnt.Mountpoint, mnt.Mountpoint))
		case errors.Is(err, os.ErrDeadlineExceeded):
			found = append(found, fail(what, "the server of %s does not answer: look at its log, or plyfs umount --lazy %s", mnt.Mountpoint, mnt.Mountpoint))
		default:
			alive++
		}
	}
	if len(found) == 0 {
		return []Finding{ok(what, "%d of plyfs, and all answer", alive)}
	}
	return found
}

// answer asks a mount for something; it does not wait for one that is stuck.
func answer(path string) error {
	done := make(chan error, 1)
	go func() {
		var st syscall.Statfs_t
		done <- syscall.Statfs(path, &st)
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(mountAnswers):
		return os.ErrDeadlineExceeded
	}
}

// filesystem tries what the store's filesystem can do.
func (m Machine) filesystem() []Finding {
	const what = "store"
	dir := m.GraphRoot
	for dir != "/" && dir != "." {
		if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
			break
		}
		dir = filepath.Dir(dir)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return []Finding{fail(what, "%s cannot be looked at: %v", dir, err)}
	}
	list := []Finding{ok(what, "%s is on %s with %d MiB free", m.GraphRoot, typeName(int64(st.Type)), st.Bavail*uint64(st.Bsize)>>20)} //nolint:unconvert // other widths elsewhere
	if st.Bavail*uint64(st.Bsize) < 100<<20 {
		list[0].Grade = Warn
		list[0].Text += ": make room"
	}
	return append(list, m.abilities(dir)...)
}

func (m Machine) abilities(dir string) []Finding {
	a, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return []Finding{warn("filesystem", "%s cannot be written by this user, so that it was not tried what it can do", dir)}
	}
	if err != nil {
		return []Finding{warn("filesystem", "files without names cannot be made (%v): imports leave their temporary file when they are killed", errors.Unwrap(err))}
	}
	defer a.Close() //nolint:errcheck // it has no name
	list := []Finding{m.attributes(a)}
	b, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err != nil {
		return list
	}
	defer b.Close() //nolint:errcheck // it has no name
	if _, err := a.Write(make([]byte, 4096)); err != nil {
		return append(list, warn("filesystem", "cannot be written: %v", err))
	}
	if err := unix.IoctlFileClone(int(b.Fd()), int(a.Fd())); err != nil {
		return append(list, ok("reflinks", "the filesystem has none: copies take room and time (xfs and btrfs have them)"))
	}
	return append(list, ok("reflinks", "copies share their blocks"))
}

func (m Machine) attributes(f *os.File) Finding {
	const what = "extended attributes"
	name := "user.plyfs.doctor"
	if m.UID == 0 {
		name = "trusted.plyfs.doctor"
	}
	if err := unix.Fsetxattr(int(f.Fd()), name, []byte("x"), 0); err != nil {
		return fail(what, "the filesystem takes no %s* (%v): use another one for the store, or the driver vfs", strings.SplitAfter(name, ".")[0], err)
	}
	return ok(what, "%s* can be set", strings.SplitAfter(name, ".")[0])
}

// typeName names the usual filesystems by their magic numbers (statfs(2)).
func typeName(magic int64) string {
	switch magic {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay"
	case unix.NFS_SUPER_MAGIC:
		return "NFS"
	case unix.FUSE_SUPER_MAGIC:
		return "a FUSE filesystem"
	case 0x2fc12fc1:
		return "zfs"
	}
	return fmt.Sprintf("a filesystem of type %#x", magic)
}
