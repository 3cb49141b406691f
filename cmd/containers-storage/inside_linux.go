package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/internal/userns"
)

// insideEnv is set in a process that was started in the user namespace: to
// "KIND:DIR", the way in and the working directory, since the way in may lead
// to another one.
const insideEnv = "CONTAINERS_STORAGE_INSIDE"

// runInside runs the whole command again in the user namespace with this
// user's subordinate IDs, where an ordinary user's stores are read and
// written. inside is false when it is to run here: for root, in the namespace,
// and where podman put us into one.
func (a *app) runInside(ctx context.Context, v *verb) (inside bool, err error) {
	if text, there := os.LookupEnv(insideEnv); there {
		kind, dir, _ := strings.Cut(text, ":")
		a.ephemeral = v.name != "unshare" && kind != userns.Join.String()
		return false, errors.Join(os.Unsetenv(insideEnv), os.Chdir(dir))
	}
	if os.Geteuid() == 0 || v.bare && v.name != "unshare" && !a.unshare {
		return false, nil
	}
	plan, err := userns.Prepare()
	if err != nil {
		return true, err
	}
	if plan.Kind == userns.Single {
		a.log.Warnf("only the user's own files are readable in full: %s", plan.Why)
	}
	self, err := os.Executable()
	if err != nil {
		return true, err
	}
	wd, err := os.Getwd()
	if err != nil {
		return true, err
	}
	cmd := exec.Command(self, a.args...)
	cmd.Env = append(os.Environ(), insideEnv+"="+plan.Kind.String()+":"+wd,
		// What podman tells its own processes there, and what storage.conf's
		// readers go by.
		"_CONTAINERS_USERNS_CONFIGURED=done", fmt.Sprintf("_CONTAINERS_ROOTLESS_UID=%d", os.Geteuid()))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
	if err := plan.Start(ctx, cmd); err != nil {
		return true, err
	}
	// A signal of the terminal reaches both; others are handed on.
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	return true, ended(cmd.Wait())
}
