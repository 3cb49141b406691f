package main

import (
	"errors"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/detach"
)

// A mount in the background wants two processes: one that its caller waits for, and
// one that serves. A Go program cannot fork once its runtime has begun, and so
// package detach runs the program twice, which is half of a mount's time (docs/benchmarks.md).
// Before the runtime begins it can: on Linux and amd64 the program is linked to begin with entry
// (front_linux_amd64.s), which forks for a command line of nothing but -o and paths, without
// debug, and waits as detach.Start does:
//
//	first process                      second process
//	entry: a pipe, SIGHUP, SIGINT and  setsid, goes on as if it were the first,
//	SIGTERM are held back, fork        with the pipe; what is its business as of
//	  waits for the pipe, or a signal    now: package detach
//	  a byte comes: status 0
//	  else: tells the second to end if
//	  it was told so, goes on, too, and
//	  ends as that does
//
// Linked otherwise, called otherwise, with the standard descriptors closed, or where fork
// fails, there is one process, and package detach.

// forked is what entry made of this process: the zero value is the only one.
type forked struct {
	second int  // the process that this one waited for, which is not ready
	told   bool // a signal told this one to end
	behind bool // this is the second process
	pipe   int  // by which it tells that it is ready
}

// ends waits for the second process, and returns the status of the first. One that
// is not for the background ends as it does.
func (f forked) ends(foreground bool) (int, error) {
	p, err := os.FindProcess(f.second)
	if err != nil {
		return 1, err
	}
	state, err := p.Wait()
	if err != nil {
		return 1, err
	}
	if state.Success() && (foreground || !f.told) {
		return 0, nil // or there was nothing to mount
	}
	return detach.Ended(&exec.ExitError{ProcessState: state})
}

// background is the second process's end of the pipe.
func (f forked) background() (*detach.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	for fd := range 2 {
		err = errors.Join(err, unix.Dup3(int(null.Fd()), fd, 0))
	}
	if err = errors.Join(err, null.Close()); err != nil {
		return nil, err
	}
	syscall.CloseOnExec(f.pipe)
	return detach.With(os.NewFile(uintptr(f.pipe), "ready")), nil
}
