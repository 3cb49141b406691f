package main

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// waiting is a pipe, terminal or the like that may give nothing for long: a
// Read that waits returns when Stop is called.
type waiting struct {
	f          *os.File
	stop, quit *os.File // two ends of a pipe: stop is readable once quit is closed
}

// newWaiting returns f itself when it is a file, which never makes anyone wait
// for another; done gives back what it took, and leaves f open.
func newWaiting(f *os.File) (r io.Reader, done func() error, err error) {
	if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() {
		return f, func() error { return nil }, nil
	}
	w := &waiting{f: f}
	if w.stop, w.quit, err = os.Pipe(); err != nil {
		return nil, nil, err
	}
	return w, func() error {
		err := w.quit.Close()
		if errors.Is(err, os.ErrClosed) {
			err = nil
		}
		return errors.Join(err, w.stop.Close())
	}, nil
}

// Stop implements layertar.Stopper.
func (w *waiting) Stop() { _ = w.quit.Close() } // once is enough

// Read implements io.Reader.
func (w *waiting) Read(b []byte) (int, error) {
	fds := []unix.PollFd{{Fd: int32(w.f.Fd()), Events: unix.POLLIN}, {Fd: int32(w.stop.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, os.NewSyscallError("poll", err)
		case fds[1].Revents != 0:
			return 0, os.ErrDeadlineExceeded
		default:
			return w.f.Read(b)
		}
	}
}
