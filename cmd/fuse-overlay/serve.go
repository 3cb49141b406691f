package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/fuse-overlay/internal/options"
	fuseoverlay "github.com/plyfs/plyfs/fuse-overlay"
	"github.com/plyfs/plyfs/internal/durable"
	"github.com/plyfs/plyfs/internal/threads"
)

// lastRequests is how long an unmount after a signal waits for programs that
// use the mount before their connection is cut.
const lastRequests = 3 * time.Second

// serve mounts and serves until the mount is gone, or ctx ends; ready is
// called once it is mounted. Numbers about it go to the file of stats=, or to.
func serve(ctx context.Context, c fuseoverlay.MountConfig, o *options.Options, to io.Writer, ready func() error) error {
	if o.AutoUnmount {
		if err := watchMe(o.Target); err != nil {
			return err
		}
	}
	srv, err := fuseoverlay.Mount(c, o.Target)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		err := srv.Serve()
		if o.Stats != "" {
			err = errors.Join(err, report(srv, o.Stats, to))
		}
		ended <- err
	}()
	defer reports(srv, o.Stats, to, c.Log)()
	// The kernel knows nothing of the root's owner before it has asked once, and
	// would refuse its owner's chmod.
	var st unix.Stat_t
	if err := unix.Stat(o.Target, &st); err != nil {
		return errors.Join(fmt.Errorf("look at the mount on %s: %w", o.Target, err), unmount(srv, o.Target, ended))
	}
	// The working directory must not keep another filesystem busy.
	if err := errors.Join(os.Chdir("/"), ready()); err != nil {
		return errors.Join(err, unmount(srv, o.Target, ended))
	}
	threads.Spare()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return unmount(srv, o.Target, ended)
	}
}

// reports writes srv's numbers at each SIGUSR1 until stop is called.
func reports(srv *fuseoverlay.Server, file string, to io.Writer, log *logrus.Entry) (stop func()) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	go func() {
		for range asked {
			if err := report(srv, file, to); err != nil {
				log.Warn(err)
			}
		}
	}()
	return func() {
		signal.Stop(asked)
		close(asked)
	}
}

// report writes srv's numbers to a file, whole, or to to.
func report(srv *fuseoverlay.Server, file string, to io.Writer) error {
	text := srv.Stats()
	if file == "" {
		_, err := io.WriteString(to, text)
		return err
	}
	if err := durable.WriteFile(file, 0o644, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	}); err != nil {
		return fmt.Errorf("write the numbers that stats= asks for: %w", err)
	}
	return nil
}

// unmount ends the mount after a signal. A busy one vanishes from the tree of
// files at once; programs that use it get a little time, or as much as it
// takes for a second signal.
func unmount(srv *fuseoverlay.Server, dir string, ended <-chan error) error {
	again, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := detachMount(srv, dir); err != nil {
		return fmt.Errorf("end the mount on %s: %w", dir, err)
	}
	select {
	case err := <-ended:
		return err
	case <-again.Done():
	case <-time.After(lastRequests):
	}
	return nil
}

// detachMount unmounts, at once or as soon as nobody uses it.
func detachMount(srv *fuseoverlay.Server, dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if !errors.Is(err, unix.EPERM) {
		if errors.Is(err, unix.EINVAL) {
			return nil // somebody has unmounted it
		}
		return err
	}
	if out, herr := exec.Command("fusermount3", "-u", "-z", "--", dir).CombinedOutput(); herr != nil {
		return errors.Join(fmt.Errorf("fusermount3: %w: %s", herr, out), srv.Unmount())
	}
	return nil
}
