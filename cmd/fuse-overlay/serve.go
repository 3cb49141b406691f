package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync/atomic"
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

// spareAfter is when more threads are made possible (threads.Spare), which stops all
// of them for a moment.
const spareAfter = 20 * time.Millisecond

// signals are those that a server is told by.
type signals struct {
	heard           chan struct{} // closed once they are heard
	end, askNumbers chan os.Signal
}

// hear has signals heard, soon: it takes a fifth of a millisecond, in which the
// layers can be opened. They are heard until the process ends.
func hear() *signals {
	s := &signals{make(chan struct{}), make(chan os.Signal, 1), make(chan os.Signal, 1)}
	go func() {
		defer close(s.heard)
		signal.Notify(s.end, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		signal.Notify(s.askNumbers, syscall.SIGUSR1)
	}()
	return s
}

// serve mounts and serves until the mount is gone, or a signal tells it to end; ready is
// called once it is mounted. Numbers about it go to the file of stats=, or to.
func serve(sigs *signals, c fuseoverlay.MountConfig, o *options.Options, to io.Writer, ready func() error) error {
	if o.AutoUnmount {
		if err := watchMe(o.Target); err != nil {
			return err
		}
	}
	srv, told, err := prepare(sigs, c, o.Target)
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
	go reports(sigs, srv, o.Stats, to, c.Log)
	// The working directory must not keep another filesystem busy.
	err = os.Chdir("/")
	if err == nil {
		select {
		case <-sigs.end:
			told = true
		default:
		}
		if told { // while the layers were opened: nobody need see it
			err = context.Canceled
		} else {
			err = srv.Show()
		}
	}
	if err != nil {
		if uerr := srv.Unmount(); uerr != nil {
			return errors.Join(err, uerr)
		}
		return errors.Join(err, <-ended)
	}
	if err := ready(); err != nil {
		return errors.Join(err, unmount(sigs, srv, o.Target, ended))
	}
	// Not at once: a mount that is of no use for long does not wait for its end.
	defer time.AfterFunc(spareAfter, threads.Spare).Stop()
	select {
	case err := <-ended:
		return err
	case <-sigs.end:
		return unmount(sigs, srv, o.Target, ended)
	}
}

// prepare opens the layers and mounts, so that nobody sees it yet. A signal ends that at once,
// whatever layer does not answer, while nothing is mounted; later it is told.
func prepare(sigs *signals, c fuseoverlay.MountConfig, dir string) (_ *fuseoverlay.Server, told bool, _ error) {
	var begun atomic.Bool // by the mount, or by a signal that has come before it
	// A signal that ended the process later would leave a dead mount.
	c.Begin = func() error {
		<-sigs.heard
		if !begun.CompareAndSwap(false, true) {
			return context.Canceled
		}
		return nil
	}
	type prepared struct {
		srv *fuseoverlay.Server
		err error
	}
	ready := make(chan prepared, 1)
	go func() {
		deepen()
		srv, err := fuseoverlay.Prepare(c, dir)
		ready <- prepared{srv, err}
	}()
	select {
	case p := <-ready:
		return p.srv, false, p.err
	case <-sigs.end:
		if begun.CompareAndSwap(false, true) {
			return nil, true, context.Canceled
		}
		p := <-ready
		return p.srv, true, p.err
	}
}

// deepen has the stack grow at once to what a mount needs, while there is next to
// nothing on it: it would else be copied four times, each time with more.
//
//go:noinline
func deepen() byte {
	var b [20 << 10]byte
	return b[len(os.Args)&1023]
}

// reports writes srv's numbers at each SIGUSR1.
func reports(sigs *signals, srv *fuseoverlay.Server, file string, to io.Writer, log *logrus.Entry) {
	for range sigs.askNumbers {
		if err := report(srv, file, to); err != nil {
			log.Warn(err)
		}
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
func unmount(sigs *signals, srv *fuseoverlay.Server, dir string, ended <-chan error) error {
	if err := detachMount(srv, dir); err != nil {
		return fmt.Errorf("end the mount on %s: %w", dir, err)
	}
	select {
	case err := <-ended:
		return err
	case <-sigs.end:
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
