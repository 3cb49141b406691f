package fusewire

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Mount mounts at dir, as New does, for a server that is given the descriptor,
// which programs that this process starts meanwhile do not inherit (go-fuse's own
// mount(2) has one that they do). o's MaxWrite becomes what the kernel takes.
func Mount(dir string, o *fuse.MountOptions) (fd int, err error) {
	normalize(o)
	return mount(dir, o)
}

// ReadAhead sets how many KiB the kernel reads ahead, for each file opened from now
// on, of the mount with a device's numbers: of a FUSE mount it is 128, whatever the server
// answers at the mount's beginning. Only root may set it, where /sys is writable. It
// sends no request, and is of use after the first one.
func ReadAhead(major, minor uint32, kib int) error {
	path := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", major, minor)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	_, err = unix.Write(fd, strconv.AppendInt(nil, int64(kib), 10))
	return errors.Join(err, unix.Close(fd))
}

// Unmount unmounts dir. EBUSY while files are open.
func Unmount(dir string, o *fuse.MountOptions) (err error) {
	for pause := 5 * time.Millisecond; ; pause = 2*pause + 5*time.Millisecond {
		if err = unmount(dir, o); err == nil || pause > 100*time.Millisecond {
			return err
		}
		time.Sleep(pause) // the kernel closes files a while after programs have
	}
}

// normalize makes MaxWrite what the kernel takes.
func normalize(o *fuse.MountOptions) {
	if top := largest(); o.MaxWrite <= 0 || o.MaxWrite > top {
		o.MaxWrite = top
	}
}

// mount mounts at dir and returns the descriptor.
func mount(dir string, o *fuse.MountOptions) (fd int, err error) {
	if direct(o) {
		return mountDirect(dir, o)
	}
	return mountHelped(dir, o)
}

func direct(o *fuse.MountOptions) bool { return o.DirectMount || o.DirectMountStrict }

// unmount unmounts dir.
func unmount(dir string, o *fuse.MountOptions) error {
	if direct(o) {
		if err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
		return nil
	}
	bin, err := helper()
	if err != nil {
		return err
	}
	if out, err := exec.Command(bin, "-u", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("%s -u %s: %w: %s", bin, dir, err, bytes.TrimSpace(out))
	}
	return nil
}

// helper is the program that mounts for ordinary users.
func helper() (string, error) {
	for _, name := range []string{"fusermount3", "/bin/fusermount3", "fusermount"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return exec.LookPath("/bin/fusermount")
}

// mountHelped has fusermount3 mount, which sends the descriptor through a socket
// (fusermount3(1); the protocol is that of libfuse's lib/mount.c: the variable
// _FUSE_COMMFD has the socket's number, one byte comes with the descriptor).
func mountHelped(dir string, o *fuse.MountOptions) (fd int, err error) {
	bin, err := helper()
	if err != nil {
		return -1, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() { err = errors.Join(err, unix.Close(pair[0])) }()
	remote := os.NewFile(uintptr(pair[1]), "fusermount3's socket")
	defer func() { err = errors.Join(err, remote.Close()) }()
	cmd := exec.Command(bin, "-o", helpedOptions(o), "--", dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{remote}
	if o.Debug {
		o.Logger.Printf("run %q", cmd.Args)
	}
	if err := cmd.Run(); err != nil {
		return -1, fmt.Errorf("%s: %w", bin, err)
	}
	return receive(pair[0])
}

// helpedOptions are those of a mount for fusermount3, which takes a backslash
// before a comma as part of a value.
func helpedOptions(o *fuse.MountOptions) string {
	list := append([]string(nil), o.Options...)
	if o.AllowOther {
		list = append(list, "allow_other")
	}
	if o.FsName != "" {
		list = append(list, "fsname="+o.FsName)
	}
	if o.Name != "" {
		list = append(list, "subtype="+o.Name)
	}
	list = append(list, "max_read="+strconv.Itoa(o.MaxWrite))
	escape := strings.NewReplacer(`\`, `\\`, `,`, `\,`)
	for i := range list {
		list[i] = escape.Replace(list[i])
	}
	return strings.Join(list, ",")
}

// receive takes the descriptor from a socket.
func receive(socket int) (fd int, err error) {
	var data [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, data[:], oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return -1, fmt.Errorf("fusermount3 sent no descriptor: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("fusermount3 sent %d messages, not one: %w", len(messages), errors.Join(err, unix.EPROTO))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("fusermount3 sent %d descriptors, not one: %w", len(fds), errors.Join(err, unix.EPROTO))
	}
	return fds[0], nil
}

// mountDirect mounts with mount(2). Options are what that takes, max_read among
// them: the kernel wants it at the mount.
func mountDirect(dir string, o *fuse.MountOptions) (fd int, err error) {
	data, fd, err := mountData(dir, o)
	if err != nil {
		return -1, err
	}
	if err := unix.Mount(source(o), dir, "fuse."+o.Name, o.DirectMountFlags, strings.Join(data, ",")); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// largest returns how many bytes the kernel reads or writes at most in one
// request.
func largest() int {
	pages := 256
	text := readSmall("/proc/sys/fs/fuse/max_pages_limit")
	if n, err := strconv.Atoi(string(bytes.TrimSpace(text))); err == nil && n > 0 {
		pages = n
	}
	return pages * os.Getpagesize()
}

// readSmall returns the first bytes of a file of the kernel's, nothing when it cannot
// be read. (os.ReadFile makes eight system calls more, for waiting that is not there.)
func readSmall(path string) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	b := make([]byte, 128)
	n, _ := unix.Read(fd, b) // an error is -1
	return b[:max(n, 0)]
}

// devClone is FUSE_DEV_IOC_CLONE of linux/fuse.h.
const devClone = 0x8004e500

// twin opens one more descriptor of the connection fd, which does not wait; -1
// when that cannot be had.
func twin(fd int) int {
	t, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1
	}
	if err := unix.IoctlSetPointerInt(t, devClone, fd); err != nil {
		_ = unix.Close(t) // never used
		return -1
	}
	return t
}
