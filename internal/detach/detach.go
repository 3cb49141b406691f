package detach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// env names the descriptor in the environment of the second process.
const env = "PLYFS_READY"

// Start runs this program again with args (without the program's name) in the
// background, and waits until it calls Ready or ends. It returns the exit
// status of the first process: 0 when the second is ready. When ctx ends
// first, the second process is told to terminate and waited for.
func Start(ctx context.Context, args []string, stderr *os.File) (status int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 1, fmt.Errorf("go into the background: %w", err)
	}
	defer func() { err = errors.Join(err, null.Close()) }()
	r, w, err := os.Pipe()
	if err != nil {
		return 1, fmt.Errorf("go into the background: %w", err)
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, null, stderr
	cmd.ExtraFiles = []*os.File{w}
	cmd.Env = append(os.Environ(), env+"=3")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 1, errors.Join(fmt.Errorf("go into the background: %w", err), r.Close(), w.Close())
	}
	if err := w.Close(); err != nil {
		return 1, errors.Join(fmt.Errorf("go into the background: %w", err), r.Close())
	}
	stop := context.AfterFunc(ctx, func() {
		// It may have ended meanwhile: then there is nobody to tell.
		_ = cmd.Process.Signal(syscall.SIGTERM)
	})
	ready, err := await(r)
	if !stop() {
		ready = false
	}
	if ready || err != nil {
		return boolStatus(ready), errors.Join(err, cmd.Process.Release())
	}
	return ended(cmd.Wait())
}

func boolStatus(ready bool) int {
	if ready {
		return 0
	}
	return 1
}

// await reads the byte; false when the other end closed without one.
func await(r *os.File) (ready bool, err error) {
	defer func() { err = errors.Join(err, r.Close()) }()
	var b [1]byte
	switch _, err := io.ReadFull(r, b[:]); {
	case err == nil:
		return true, nil
	case errors.Is(err, io.EOF):
		return false, nil
	default:
		return false, fmt.Errorf("wait for the background process: %w", err)
	}
}

// ended turns the end of the second process into a status that is never 0:
// it ended without being ready.
func ended(err error) (int, error) {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 1, fmt.Errorf("the background process was ended by signal %d (%s)", ws.Signal(), ws.Signal())
		}
		return max(exit.ExitCode(), 1), nil
	}
	return 1, err
}

// Process is the second process's end of the pipe; nil in a process that
// Start did not make.
type Process struct{ pipe *os.File }

// Here returns the end of the pipe that Start gave to this process, or nil.
// The variable is removed from the environment, and the descriptor is not
// inherited by programs that are run later.
func Here() (*Process, error) {
	text := os.Getenv(env)
	if text == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("the variable %s is set to %q: unset it", env, text)
	}
	if err := os.Unsetenv(env); err != nil {
		return nil, err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("the variable %s names descriptor %d, which is not open: %w", env, fd, err)
	}
	return &Process{os.NewFile(uintptr(fd), "ready")}, nil
}

// File is the descriptor, for a further process that takes this one's place;
// it must then be given PLYFS_READY with the number that it has there.
func (p *Process) File() *os.File { return p.pipe }

// Ready tells the first process that all is well, and lets go of standard
// error, whose reader may be waiting for its end. It does nothing on nil.
func (p *Process) Ready() (err error) {
	if p == nil {
		return nil
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("let go of standard error: %w", err)
	}
	defer func() { err = errors.Join(err, null.Close()) }()
	if err := unix.Dup3(int(null.Fd()), 2, 0); err != nil {
		return fmt.Errorf("let go of standard error: %w", err)
	}
	if _, err := p.pipe.Write([]byte{1}); err != nil && !errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("tell that all is ready: %w", err)
	}
	return p.pipe.Close()
}
