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

// Watch returns a function that waits until the process that announced name
// has ended, at most for a time. With no such process it returns at once.
func Watch(name string) (wait func(ctx context.Context, most time.Duration) error) {
	c, err := net.Dial("unix", "@"+name)
	if err != nil {
		return func(context.Context, time.Duration) error { return nil }
	}
	return func(ctx context.Context, most time.Duration) error {
		err := c.SetDeadline(time.Now().Add(most))
		// After that, since the later of two deadlines holds.
		stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
		defer stop()
		if err == nil {
			_, err = io.Copy(io.Discard, c)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ECONNRESET) {
			err = ctx.Err()
		}
		return errors.Join(err, c.Close())
	}
}

// MountName is the name for the server of a mount, by the mount's device
// numbers: those do not change and can be read without touching the mount.
func MountName(major, minor int) string { return fmt.Sprintf("plyfs-%d-%d", major, minor) }
