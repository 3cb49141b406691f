package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/fsview/fusefs"
	"github.com/plyfs/plyfs/internal/detach"
	"github.com/plyfs/plyfs/internal/userns"
)

// An ordinary user's run is two processes (ADR 0009): the outer one, in the
// user's own namespaces, and the inner one, in a user namespace with the
// subordinate IDs, which opens the store. The variable innerEnv tells the
// inner one of itself: "SOCKET:OUTER:DIR", the descriptor over which it is given the
// FUSE connection or 0, the outer's process number, and the working directory.
//
// The mount is made after the inner process has its mount namespace, which
// would else hold a copy of the mount that keeps the connection alive after
// everyone else's unmount.
const innerEnv = "PLYFS_INNER"

// inner is what the inner process knows.
type inner struct {
	socket *os.File // nil without a mount
	outer  int
	maps   userns.Maps
}

// insideHere returns nil in a process that is not an inner one.
func insideHere() (*inner, error) {
	text := os.Getenv(innerEnv)
	if text == "" {
		return nil, nil
	}
	parts := strings.SplitN(text, ":", 3)
	if len(parts) != 3 {
		return nil, fmt.Errorf("the variable %s is set to %q: unset it", innerEnv, text)
	}
	fd, err1 := strconv.Atoi(parts[0])
	outer, err2 := strconv.Atoi(parts[1])
	if err := errors.Join(err1, err2, os.Unsetenv(innerEnv), os.Chdir(parts[2])); err != nil {
		return nil, fmt.Errorf("in the user namespace: %w", err)
	}
	in := &inner{outer: outer}
	if fd > 2 {
		syscall.CloseOnExec(fd)
		in.socket = os.NewFile(uintptr(fd), "socket")
	}
	var err error
	in.maps, err = userns.Current()
	return in, err
}

// end asks the outer process, which alone can unmount, to do so.
func (in *inner) end() error {
	if os.Getppid() != in.outer {
		return nil // it is gone: the mount dies with this process
	}
	return syscall.Kill(in.outer, syscall.SIGTERM)
}

// needsInner tells whether this process must start an inner one.
func (a *app) needsInner() bool { return a.inner == nil && os.Geteuid() != 0 }

// innerCommand prepares the inner process, with the same arguments.
func (a *app) innerCommand(socket *os.File) (userns.Plan, *exec.Cmd, error) {
	plan, err := userns.Prepare()
	if err != nil {
		return plan, nil, err
	}
	if plan.Kind == userns.Single {
		a.log.Warnf("only the user's own files are readable in full: %s", plan.Why)
	}
	// The program's own path: a shell or nsenter runs it.
	self, err := os.Executable()
	if err != nil {
		return plan, nil, err
	}
	wd, err := os.Getwd()
	if err != nil {
		return plan, nil, err
	}
	cmd := detach.Again(a.args)
	cmd.Path = self
	fd := 0
	if socket != nil {
		cmd.ExtraFiles = []*os.File{socket}
		fd = 3
	}
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d:%d:%s", innerEnv, fd, os.Getpid(), wd),
		// What podman tells its own processes there, and what storage.conf's
		// readers go by.
		"_CONTAINERS_USERNS_CONFIGURED=done", fmt.Sprintf("_CONTAINERS_ROOTLESS_UID=%d", os.Geteuid()))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
	return plan, cmd, nil
}

// runInside runs this command in the user namespace and ends as it does.
func (a *app) runInside(ctx context.Context) error {
	plan, cmd, err := a.innerCommand(nil)
	if err != nil {
		return err
	}
	if err := plan.Start(ctx, cmd); err != nil {
		return err
	}
	// A signal of the terminal reaches both; others are handed on.
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	return a.finished(cmd.Wait())
}

// finished turns the inner process's end into ours; it has said why.
func (a *app) finished(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exitStatus(exit.ExitCode())
	}
	return err
}

// superviseMount is a mount by an ordinary user: this process mounts, starts
// the server inside, and unmounts.
func (a *app) superviseMount(ctx context.Context, dir string, o mountOptions, ready func() error) (err error) {
	ours, theirs, err := detach.Pair()
	if err != nil {
		return err
	}
	plan, cmd, err := a.innerCommand(theirs)
	if err != nil {
		return errors.Join(err, ours.Close(), theirs.Close())
	}
	ok, err := detach.Await(ctx, cmd, func() error {
		if err := errors.Join(plan.Start(ctx, cmd), theirs.Close()); err != nil {
			return errors.Join(err, ours.Close())
		}
		err := errors.Join(mountFor(ctx, ours, dir, o), ours.Close())
		if err != nil {
			_ = cmd.Wait() // it saw the socket's end and is silent
		}
		return err
	})
	if err != nil {
		return err
	}
	undo := func() error { return a.endMount(context.WithoutCancel(ctx), dir) }
	// A signal that came before the server was ready ends it as one after.
	if !ok && ctx.Err() == nil {
		status, err := detach.Ended(cmd.Wait())
		return a.after(exitStatus(status), err, undo())
	}
	if err := announce(dir); err != nil {
		a.log.Warn(err)
	}
	if err = errors.Join(os.Chdir("/"), ready()); err != nil {
		err = errors.Join(err, undo()) // ends the server, which is waited for
	}
	stop := context.AfterFunc(ctx, func() {
		if uerr := undo(); uerr != nil {
			a.log.Error(uerr)
		}
		// The server sees the mount's end, unless programs still use it: then it
		// is told to let go of them. One that has ended is not there to be told.
		time.AfterFunc(lastRequests, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	})
	defer stop()
	// However the server ended, what it left is removed.
	return a.after(a.finished(cmd.Wait()), err, undo())
}

// mountFor mounts and passes the connection to the inner process.
func mountFor(ctx context.Context, socket *os.File, dir string, o mountOptions) error {
	dev, err := fusefs.Mount(ctx, dir, fusefs.MountOptions{AllowOther: o.allowOther, ReadOnly: o.readOnly, NoExec: o.noExec})
	if err != nil {
		return err
	}
	err = detach.Send(socket, dev)
	if err != nil {
		err = errors.Join(err, fusefs.Unmount(context.WithoutCancel(ctx), dir, true))
	}
	return errors.Join(err, dev.Close())
}

// after returns the first error; beside a bare status, which says nothing to
// the user, the others are said here.
func (a *app) after(first error, others ...error) error {
	var status exitStatus
	rest := errors.Join(others...)
	if rest == nil || !errors.As(first, &status) {
		return errors.Join(first, rest)
	}
	a.log.Error(rest)
	return first
}

// endMount unmounts dir, lazily when it is busy. Nothing mounted is fine, also
// when somebody else unmounts it meanwhile.
func (a *app) endMount(ctx context.Context, dir string) error {
	var last error
	for _, lazy := range []bool{false, true} {
		m, err := fusefs.MountAt(dir)
		if err != nil || m == nil || m.FSType != "fuse."+fusefs.Subtype {
			return err
		}
		if last = fusefs.Unmount(ctx, dir, lazy); last == nil {
			return nil
		}
	}
	if m, err := fusefs.MountAt(dir); err == nil && m == nil {
		return nil
	}
	return last
}
