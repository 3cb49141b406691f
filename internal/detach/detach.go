package detach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
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
	cmd := Again(args)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, null, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	ready, err := Await(ctx, cmd, cmd.Start)
	if err != nil {
		return 1, fmt.Errorf("go into the background: %w", err)
	}
	if ready {
		return 0, cmd.Process.Release()
	}
	return Ended(cmd.Wait())
}

// Again returns a command that runs this program again, under the name that
// it was called by, in the environment that it has.
func Again(args []string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = os.Environ()
	return cmd
}

// Await starts cmd by calling start, with the pipe added to its descriptors,
// and waits until it calls Ready (true) or ends (false). When ctx ends first,
// cmd is told to terminate. Without an error the caller owes a Wait, or a
// Release; with one nothing was started.
func Await(ctx context.Context, cmd *exec.Cmd, start func() error) (ready bool, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	cmd.ExtraFiles = append(cmd.ExtraFiles, w)
	cmd.Env = append(cmd.Env, env+"="+strconv.Itoa(2+len(cmd.ExtraFiles)))
	err = start()
	if cerr := w.Close(); err != nil || cerr != nil {
		return false, errors.Join(err, cerr)
	}
	stop := context.AfterFunc(ctx, func() {
		// It may have ended meanwhile: then there is nobody to tell.
		_ = cmd.Process.Signal(syscall.SIGTERM)
	})
	var b [1]byte
	_, err = io.ReadFull(r, b[:])
	return stop() && err == nil, nil
}

// Ended turns the end of the second process into a status that is never 0:
// it ended without being ready.
func Ended(err error) (int, error) {
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
	// The kernel calls it "exe". The name is for ps and for messages only.
	_ = os.WriteFile("/proc/self/comm", []byte(filepath.Base(os.Args[0])), 0)
	return &Process{os.NewFile(uintptr(fd), "ready")}, nil
}

// With is a second process that was made otherwise, and has the pipe.
func With(pipe *os.File) *Process { return &Process{pipe} }

// Ready tells the first process that all is well. With letGo it also lets go
// of standard error, whose reader may be waiting for its end. On nil it does
// nothing.
func (p *Process) Ready(letGo bool) error {
	if p == nil {
		return nil
	}
	if letGo {
		if err := silence(); err != nil {
			return fmt.Errorf("let go of standard error: %w", err)
		}
	}
	if _, err := p.pipe.Write([]byte{1}); err != nil && !errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("tell that all is ready: %w", err)
	}
	return p.pipe.Close()
}

// silence makes standard error lead nowhere.
func silence() (err error) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, null.Close()) }()
	return unix.Dup3(int(null.Fd()), 2, 0)
}
