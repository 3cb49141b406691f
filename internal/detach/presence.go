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

// Announce lets other processes wait for this one's end by a name: they hold
// a connection to an abstract socket, which the kernel closes when the process
// ends, however it ends. Nothing is said over it. A name that is taken (by a
// server of the same mount number that is still ending) is no error.
func Announce(name string) error {
	l, err := net.Listen("unix", "@"+name)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("announce %s: %w", name, err)
	}
	go func() {
		var held []net.Conn // closed by the process's end
		for len(held) < 16 {
			c, err := l.Accept()
			if err != nil {
				return
			}
			held = append(held, c)
		}
	}()
	return nil
}

// Watched is another process that announced itself, or none.
type Watched struct {
	conn *net.UnixConn // nil: there is none
}

// Watch finds the process that announced name. The caller closes it.
func Watch(name string) Watched {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: "@" + name, Net: "unix"})
	if err != nil {
		return Watched{}
	}
	return Watched{c}
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
// numbers: those do not change and can be read without touching the mount.
func MountName(major, minor int) string { return fmt.Sprintf("plyfs-%d-%d", major, minor) }
