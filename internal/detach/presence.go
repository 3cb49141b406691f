package detach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// servers is how many processes may have announced one name at a time.
const servers = 16

// watchers is how many may ever connect to one of them (or net.core.somaxconn):
// those that have let go are counted.
const watchers = 4096

// Announce lets other processes wait for this one's end by a name: they hold
// a connection to an abstract socket, which the kernel ends when the process
// ends, however it ends. Nothing is said over it, and nobody accepts it: the
// socket is never closed, so that they wait for the process alone.
//
// Who announces a name that is taken has what it stands for from then on: the
// number of a mount is given to a new one as soon as the old one is gone, while
// that one's server is still ending. So each takes the place after all that are
// taken, and Watch finds the last.
func Announce(name string) error {
	last := -1
	for i := servers - 1; i >= 0; i-- {
		fd, err := bind(place(name, i))
		if errors.Is(err, unix.EADDRINUSE) {
			break
		}
		if err != nil {
			return errors.Join(fmt.Errorf("announce %s: %w", name, err), closeSocket(last))
		}
		if err := closeSocket(last); err != nil {
			return errors.Join(fmt.Errorf("announce %s: %w", name, err), closeSocket(fd))
		}
		last = fd
	}
	if last < 0 {
		return fmt.Errorf("announce %s: %d processes are there already: %w", name, servers, unix.EADDRINUSE)
	}
	if err := unix.Listen(last, watchers); err != nil {
		return errors.Join(fmt.Errorf("announce %s: %w", name, err), closeSocket(last))
	}
	return nil
}

// place is the i-th of the sockets of a name.
func place(name string, i int) string {
	if i == 0 {
		return "@" + name
	}
	return fmt.Sprintf("@%s.%d", name, i)
}

// bind makes a socket of that address.
func bind(address string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: address}); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// closeSocket closes a socket, if it is one.
func closeSocket(fd int) error {
	if fd < 0 {
		return nil
	}
	return unix.Close(fd)
}

// Watched is another process that announced itself, or none.
type Watched struct {
	conn *net.UnixConn // nil: there is none
}

// Watch finds the process that announced name, the last one if there are
// several. The caller closes it.
func Watch(name string) Watched {
	for i := servers - 1; i >= 0; i-- {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: place(name, i), Net: "unix"})
		if err == nil {
			return Watched{c}
		}
	}
	return Watched{}
}

// Close ends the watch.
func (w Watched) Close() error {
	if w.conn == nil {
		return nil
	}
	return w.conn.Close()
}

// Wait waits until the process has ended, at most for a time, and tells
// whether it has. With no such process it returns at once.
func (w Watched) Wait(ctx context.Context, most time.Duration) (ended bool, err error) {
	if w.conn == nil {
		return true, nil
	}
	if err := w.conn.SetDeadline(time.Now().Add(most)); err != nil {
		return false, fmt.Errorf("wait for a process: %w", err)
	}
	// After that, since the later of two deadlines holds.
	stop := context.AfterFunc(ctx, func() { _ = w.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err = io.Copy(io.Discard, w.conn)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, ctx.Err()
	case err != nil && !errors.Is(err, syscall.ECONNRESET):
		return false, fmt.Errorf("wait for a process: %w", err)
	}
	return true, nil
}

// PID is the process's number, as this process's namespace counts; 0 when there
// is none, or it has none here.
func (w Watched) PID() (int, error) {
	if w.conn == nil {
		return 0, nil
	}
	raw, err := w.conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("ask for a process: %w", err)
	}
	var cred *unix.Ucred
	var serr error
	err = raw.Control(func(fd uintptr) { cred, serr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, serr); err != nil {
		return 0, fmt.Errorf("ask for a process: %w", err)
	}
	return int(cred.Pid), nil
}

// MountName is the name for the server of a mount, by the mount's device
// numbers: those do not change, are the same in all mount namespaces, and can be
// read without touching the mount.
func MountName(major, minor int) string { return fmt.Sprintf("plyfs-%d-%d", major, minor) }
