package fusewire

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A mount that comes into the tree of files when all is ready, by fsmount(2) and
// move_mount(2), is never busy for its server's sake: whoever waits for it and unmounts
// it at once would else meet the server, which looks at it.

// hidden is a mount until it is in its place.
type hidden struct {
	mu    sync.Mutex
	mnt   *os.File // guarded by mu; nil: it is in its place, or ended
	ended bool     // guarded by mu: it is in no place
}

// mount is the hidden mount, nil where there is none any more. It stays a descriptor
// of it while it is used by its SyscallConn, whoever closes it meanwhile.
func (h *hidden) mount() *os.File {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mnt
}

// end ends the mount, if it is not in its place yet, and tells whether it was not.
func (h *hidden) end() (was bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mnt == nil {
		return h.ended, nil
	}
	err = h.mnt.Close()
	h.mnt, h.ended = nil, true
	return true, err
}

// show puts it on dir.
func (h *hidden) show(dir string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.ended:
		return fmt.Errorf("put the mount on %s: it has been ended: %w", dir, unix.ENODEV)
	case h.mnt == nil:
		return nil
	}
	if err := unix.MoveMount(int(h.mnt.Fd()), "", unix.AT_FDCWD, dir, moving); err != nil {
		return fmt.Errorf("put the mount on %s: %w", dir, err)
	}
	err := h.mnt.Close() // at once: the mount is busy with it
	h.mnt = nil
	return err
}

// moving are move_mount(2)'s flags, by which mount(2) finds its place, too.
const moving = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_SYMLINKS | unix.MOVE_MOUNT_T_AUTOMOUNTS

// movable tells whether there is move_mount(2): a filter of system calls may refuse it and
// let fsmount(2) pass, which would be found out when it is late. Asked to move
// what is not open, the kernel says so.
func movable() bool {
	return errors.Is(unix.MoveMount(-1, "", -1, "", moving|unix.MOVE_MOUNT_T_EMPTY_PATH), unix.EBADF)
}

// mountHidden mounts by what mount(2) is given, and returns the mount, which nobody
// sees yet, too; -1 where it cannot: mount(2) tells better what is wrong (a kernel
// before 5.4, a filter of system calls, a bad option), and takes labels in quotes.
func mountHidden(dir string, o *fuse.MountOptions) (fd, mnt int) {
	if !movable() {
		return -1, -1
	}
	for _, opt := range o.Options {
		if strings.ContainsAny(opt, "=\"") {
			return -1, -1
		}
	}
	data, fd, err := mountData(dir, o)
	if err != nil {
		return -1, -1
	}
	if mnt, err = hiddenMount(o, data); err != nil {
		_ = unix.Close(fd) // never used
		return -1, -1
	}
	return fd, mnt
}

// hiddenMount makes the mount.
func hiddenMount(o *fuse.MountOptions, data []string) (mnt int, err error) {
	fs, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer func() { err = errors.Join(err, unix.Close(fs)) }()
	data = append(data, "source="+source(o), "subtype="+o.Name)
	if o.DirectMountFlags&unix.MS_RDONLY != 0 {
		data = append(data, "ro")
	}
	for _, d := range data {
		key, value, has := strings.Cut(d, "=")
		if has {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return -1, err
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes(o.DirectMountFlags))
}

// attributes are mount(2)'s flags as fsmount(2) takes them.
func attributes(flags uintptr) (attr int) {
	for _, f := range []struct {
		flag uintptr
		attr int
	}{
		{unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY}, {unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID}, {unix.MS_NODEV, unix.MOUNT_ATTR_NODEV},
		{unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC}, {unix.MS_NOATIME, unix.MOUNT_ATTR_NOATIME},
	} {
		if flags&f.flag != 0 {
			attr |= f.attr
		}
	}
	return attr
}

// mountData opens a connection and returns it with what mount(2) is to be given for it.
func mountData(dir string, o *fuse.MountOptions) (data []string, fd int, err error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return nil, -1, err
	}
	if fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return nil, -1, err
	}
	data = []string{
		"fd=" + strconv.Itoa(fd), fmt.Sprintf("rootmode=%o", st.Mode&unix.S_IFMT),
		"user_id=" + strconv.Itoa(os.Geteuid()), "group_id=" + strconv.Itoa(os.Getegid()),
		"max_read=" + strconv.Itoa(o.MaxWrite),
	}
	data = append(data, o.Options...)
	if o.AllowOther {
		data = append(data, "allow_other")
	}
	return data, fd, nil
}

func source(o *fuse.MountOptions) string {
	if o.FsName != "" {
		return o.FsName
	}
	return o.Name
}

// Show puts the mount into its place, if it is not there. Without it, and after an
// error, Unmount ends the mount as if it were; after Unmount it is an error (ENODEV). The two may
// be called at once.
func (s *Server) Show() error { return s.hidden.show(s.dir) }

// Hidden tells whether nobody has seen the mount yet.
func (s *Server) Hidden() bool { return s.hidden.mount() != nil }

// Statx is statx(2) of the mount's root, also before Show. With AT_STATX_DONT_SYNC it
// asks the server for nothing, else Serve must have been called.
func (s *Server) Statx(flags int, st *unix.Statx_t) error {
	const mask = unix.STATX_BASIC_STATS | unix.STATX_MNT_ID
	mnt := s.hidden.mount()
	if mnt == nil {
		return unix.Statx(unix.AT_FDCWD, s.dir, flags|unix.AT_NO_AUTOMOUNT, mask, st)
	}
	conn, err := mnt.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = conn.Control(func(fd uintptr) { serr = unix.Statx(int(fd), "", flags|unix.AT_EMPTY_PATH, mask, st) })
	return errors.Join(err, serr)
}
