package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
)

// Subtype is what follows "fuse." in the type of our mounts, and their source.
const Subtype = "plyfs"

// MountOptions say how the kernel shows the mount.
type MountOptions struct {
	// AllowOther lets other users than the mounting one in.
	AllowOther bool
	// DefaultPermissions makes the kernel check modes and owners; leave it off
	// only for a Server with Options.Check.
	DefaultPermissions bool
	// ReadOnly refuses every change at the mount.
	ReadOnly bool
	// NoExec, Dev and Suid are the mount flags; an ordinary user's mount is
	// always nodev and nosuid.
	NoExec, Dev, Suid bool
	// MaxRead is the largest read in bytes; 0: 128 KiB. Keep it equal to
	// Options.MaxWrite of the Server.
	MaxRead int
}

func (o MountOptions) maxRead() int {
	if o.MaxRead > 0 {
		return o.MaxRead
	}
	return 128 << 10
}

// Mount attaches a new FUSE connection to the directory dir and returns its
// descriptor, which goes to Server.Start (in this process or another). Until
// that answers, whoever looks at dir waits. Root mounts by mount(2), others
// through fusermount3, in their own mount namespace.
//
// Errors say in one sentence what is wrong with dir or the machine and what
// to do; nothing is mounted then.
func Mount(ctx context.Context, dir string, o MountOptions) (*os.File, error) {
	if err := CheckMountPoint(dir); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		return mountDirect(dir, o)
	}
	return mountHelper(ctx, dir, o)
}

// CheckMountPoint returns nil when dir is a directory that can be mounted on,
// else a sentence.
func CheckMountPoint(dir string) error {
	var st unix.Stat_t
	err := unix.Stat(dir, &st)
	switch {
	case errors.Is(err, unix.ENOTCONN):
		return errno.New(errno.ErrInUse, "%s is a mount whose server has died: run `plyfs umount %s` first", dir, dir)
	case errors.Is(err, unix.ENOENT):
		return errno.New(errno.ErrUnknown, "the mount point %s does not exist: make the directory first", dir)
	case err != nil:
		return fmt.Errorf("look at the mount point %s: %w", dir, err)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return errno.New(errno.ErrNotDir, "the mount point %s is not a directory", dir)
	}
	m, err := MountAt(dir)
	switch {
	case err != nil:
		return err
	case m == nil:
		return nil
	case m.FSType == "fuse."+Subtype:
		return errno.New(errno.ErrInUse, "%s shows a plyfs tree already: run `plyfs umount %s` first, or choose another directory", dir, dir)
	default:
		return errno.New(errno.ErrInUse, "%s is busy: a %s filesystem is mounted there; choose another directory", dir, m.FSType)
	}
}

// MountAt returns what is mounted exactly at dir (the topmost), or nil. It
// never touches the mount itself, so a dead server does not matter.
func MountAt(dir string) (*mountinfo.Info, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find mounts at %s: %w", dir, err)
	}
	if parent, perr := filepath.EvalSymlinks(filepath.Dir(abs)); perr == nil {
		abs = filepath.Join(parent, filepath.Base(abs))
	}
	if target, lerr := os.Readlink(abs); lerr == nil {
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(abs), target)
		}
		abs = filepath.Clean(target)
	}
	all, err := mountinfo.GetMounts(func(i *mountinfo.Info) (bool, bool) { return i.Mountpoint != abs, false })
	if err != nil {
		return nil, fmt.Errorf("find mounts at %s: %w", dir, err)
	}
	if len(all) == 0 {
		return nil, nil
	}
	return all[len(all)-1], nil // the topmost
}

func openDevice() (*os.File, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		return os.NewFile(uintptr(fd), "/dev/fuse"), nil
	case errors.Is(err, unix.ENOENT):
		return nil, errno.New(errno.ErrNotSupported, "there is no /dev/fuse: run `modprobe fuse`, or start the container with `--device /dev/fuse`; `plyfs ls` and its like need no mount")
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return nil, errno.New(errno.ErrNotSupported, "/dev/fuse has no driver behind it: run `modprobe fuse`; `plyfs ls` and its like need no mount")
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return nil, errno.New(errno.ErrForbidden, "/dev/fuse may not be opened (%w): start the container with `--device /dev/fuse`, or give the device mode 0666; `plyfs ls` and its like need no mount", err)
	}
	return nil, fmt.Errorf("open /dev/fuse: %w", err)
}

func mountDirect(dir string, o MountOptions) (_ *os.File, err error) {
	dev, err := openDevice()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, dev.Close())
		}
	}()
	conn, err := dev.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("mount on %s: %w", dir, err)
	}
	flags := uintptr(0)
	for _, f := range [...]struct {
		on  bool
		bit uintptr
	}{{!o.Suid, unix.MS_NOSUID}, {!o.Dev, unix.MS_NODEV}, {o.NoExec, unix.MS_NOEXEC}, {o.ReadOnly, unix.MS_RDONLY}} {
		if f.on {
			flags |= f.bit
		}
	}
	var merr error
	cerr := conn.Control(func(fd uintptr) {
		data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,max_read=%d", fd, os.Geteuid(), os.Getegid(), o.maxRead())
		if o.DefaultPermissions {
			data += ",default_permissions"
		}
		if o.AllowOther {
			data += ",allow_other"
		}
		merr = unix.Mount(Subtype, dir, "fuse."+Subtype, flags, data)
	})
	switch {
	case cerr != nil:
		return nil, fmt.Errorf("mount on %s: %w", dir, cerr)
	case errors.Is(merr, unix.EPERM):
		return nil, errno.New(errno.ErrForbidden, "mount on %s: %w: this root lacks CAP_SYS_ADMIN (start the container with `--cap-add SYS_ADMIN`, or work in `unshare -Urm`)", dir, merr)
	case errors.Is(merr, unix.ENODEV):
		return nil, errno.New(errno.ErrNotSupported, "mount on %s: the kernel has no FUSE: run `modprobe fuse`; `plyfs ls` and its like need no mount", dir)
	case merr != nil:
		return nil, fmt.Errorf("mount on %s: %w", dir, merr)
	}
	return dev, nil
}

// helper finds fusermount3 or its older name.
func helper() (string, error) {
	for _, name := range []string{"fusermount3", "fusermount"} {
		for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/bin", "/bin") {
			p := filepath.Join(dir, name)
			if filepath.IsAbs(p) && unix.Access(p, unix.X_OK) == nil {
				return p, nil
			}
		}
	}
	return "", errno.New(errno.ErrNotSupported, "there is no fusermount3, which mounts for ordinary users: install the package fuse3, or in a container be its root (`--cap-add SYS_ADMIN`); `plyfs ls` and its like need no mount")
}

// mountHelper runs fusermount3, which mounts and sends the descriptor back
// over a socket that it finds by _FUSE_COMMFD (libfuse, lib/mount.c).
func mountHelper(ctx context.Context, dir string, o MountOptions) (_ *os.File, err error) {
	bin, err := helper()
	if err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(dir) // fusermount3 follows none
	if err != nil {
		return nil, fmt.Errorf("mount on %s: %w", dir, err)
	}
	if dev, err := openDevice(); err != nil {
		return nil, err
	} else if err := dev.Close(); err != nil {
		return nil, fmt.Errorf("close /dev/fuse: %w", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("mount on %s: socketpair: %w", dir, err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer func() { err = errors.Join(err, ours.Close()) }()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, bin, "-o", helperOptions(o), "--", real)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3", "LC_ALL=C")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = &stderr
	runErr := cmd.Run()
	if err := theirs.Close(); err != nil {
		return nil, fmt.Errorf("mount on %s: %w", dir, err)
	}
	if runErr != nil {
		return nil, helperError(dir, stderr.String(), runErr)
	}
	return receiveFile(ours)
}

func helperOptions(o MountOptions) string {
	opts := []string{"fsname=" + Subtype, "subtype=" + Subtype, fmt.Sprintf("max_read=%d", o.maxRead())}
	for _, f := range [...]struct {
		on   bool
		word string
	}{{o.DefaultPermissions, "default_permissions"}, {o.AllowOther, "allow_other"}, {o.ReadOnly, "ro"}, {o.NoExec, "noexec"}} {
		if f.on {
			opts = append(opts, f.word)
		}
	}
	return strings.Join(opts, ",")
}

func helperError(dir, text string, runErr error) error {
	text = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), "fusermount3: "))
	switch {
	case strings.Contains(text, "allow_other"):
		return errno.New(errno.ErrForbidden, "allow_other is not permitted here: put the line user_allow_other into /etc/fuse.conf, or mount without it")
	case strings.Contains(text, "no write access"), strings.Contains(text, "user has no write access"):
		return errno.New(errno.ErrForbidden, "%s is not yours: an ordinary user mounts only on a directory of his own that he can write", dir)
	case strings.Contains(text, "Operation not permitted"), strings.Contains(text, "Permission denied"):
		return errno.New(errno.ErrForbidden, "fusermount3 may not mount on %s (%s): it must be set-user-ID root, and the container must allow mounts; `plyfs ls` and its like need no mount", dir, text)
	case text == "":
		return fmt.Errorf("fusermount3 on %s: %w", dir, runErr)
	}
	return errno.New(errno.ErrNotSupported, "fusermount3 refused to mount on %s: %s", dir, text)
}

// receiveFile takes the descriptor that fusermount3 has sent.
func receiveFile(sock *os.File) (*os.File, error) {
	conn, err := sock.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("receive the descriptor from fusermount3: %w", err)
	}
	oob := make([]byte, unix.CmsgSpace(4))
	var n int
	var rerr error
	err = conn.Control(func(fd uintptr) {
		_, n, _, _, rerr = unix.Recvmsg(int(fd), make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	})
	if err = errors.Join(err, rerr); err != nil {
		return nil, fmt.Errorf("receive the descriptor from fusermount3: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil, fmt.Errorf("receive the descriptor from fusermount3: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive the descriptor from fusermount3: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	return os.NewFile(uintptr(fds[0]), "/dev/fuse"), nil
}

// Unmount removes the plyfs mount at dir, one whose server has died too. A
// busy one is EBUSY unless lazy is true: then it disappears at once and its
// connection ends with its last user.
func Unmount(ctx context.Context, dir string, lazy bool) error {
	m, err := MountAt(dir)
	if err != nil {
		return err
	}
	if m == nil {
		return errno.New(errno.ErrBadValue, "nothing is mounted at %s", dir)
	}
	if m.FSType != "fuse."+Subtype {
		return errno.New(errno.ErrBadValue, "what is mounted at %s is not plyfs but %s", dir, m.FSType)
	}
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	// A SIGTERM'd server's own last requests may hold the mount for a moment.
	for try := 0; ; try++ {
		err = unix.Unmount(m.Mountpoint, flags)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || try == 5 {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("unmount %s: %w", dir, ctx.Err())
		case <-time.After(10 * time.Millisecond << try):
		}
	}
	if errors.Is(err, unix.EPERM) {
		return unmountHelper(ctx, m.Mountpoint, lazy)
	}
	return unmountError(dir, err)
}

func unmountError(dir string, err error) error {
	if errors.Is(err, syscall.EBUSY) {
		return errno.New(errno.ErrInUse, "%s is busy: a program has a file or its working directory there", dir)
	}
	return fmt.Errorf("unmount %s: %w", dir, err)
}

func unmountHelper(ctx context.Context, dir string, lazy bool) error {
	bin, err := helper()
	if err != nil {
		return err
	}
	args := []string{"-u", "--", dir}
	if lazy {
		args = []string{"-u", "-z", "--", dir}
	}
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Dir = "/" // never inside a mount of ours
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	switch {
	case err == nil:
		return nil
	case strings.Contains(text, "busy"):
		return unmountError(dir, syscall.EBUSY)
	}
	return errno.New(errno.ErrForbidden, "unmount %s: %s", dir, text)
}
