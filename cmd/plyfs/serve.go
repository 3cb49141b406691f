package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/fsview/fusefs"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// lastRequests is how long an unmount waits for programs that use the mount
// before their connection is cut.
const lastRequests = 3 * time.Second

// serve mounts the tree on dir and serves it until it is unmounted or ctx
// ends; ready is called once it is mounted.
func (a *app) serve(ctx context.Context, dir string, o mountOptions, ready func() error) (err error) {
	// Before anything is opened: a bad mount point changes nothing.
	if err := fusefs.CheckMountPoint(dir); err != nil {
		return err
	}
	st, conf, err := a.openStore(ctx, o.lockTimeout, o.create, o.readOnly)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	tree, err := openTree(st, conf, o, a.log)
	if err != nil {
		return err
	}
	// Mounts that were taken are given back even when ctx has ended.
	defer func() { err = errors.Join(err, tree.Close(context.WithoutCancel(ctx))) }()
	srv := fusefs.New(tree.Root(), fusefs.Options{Log: a.log, Generation: generation(ctx, st)})
	dev, err := fusefs.Mount(ctx, dir, fusefs.MountOptions{
		AllowOther: o.allowOther, DefaultPermissions: true, ReadOnly: o.readOnly, NoExec: o.noExec,
	})
	if err != nil {
		return err
	}
	if err := srv.Start(dev); err != nil {
		return errors.Join(err, fusefs.Unmount(context.WithoutCancel(ctx), dir, true))
	}
	defer watch(ctx, st, srv)()
	// The working directory must not keep other filesystems busy.
	if err := errors.Join(os.Chdir("/"), ready()); err != nil {
		return errors.Join(err, a.unmount(ctx, srv, dir))
	}
	a.log.Infof("mounted %s (%s) on %s", st.GraphRoot(), st.DriverName(), dir)
	select {
	case <-srv.Done():
		return nil
	case <-ctx.Done():
		return a.unmount(ctx, srv, dir)
	}
}

// unmount ends the mount after a signal: with a busy one it lets the mount
// vanish, gives programs a little time, and then cuts them off by ending.
func (a *app) unmount(ctx context.Context, srv *fusefs.Server, dir string) error {
	again, stop := signal.NotifyContext(context.WithoutCancel(ctx), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := fusefs.Unmount(again, dir, false)
	if errno.Of(err) == syscall.EBUSY {
		a.log.Warnf("%v: the mount vanishes now and ends in %s", err, lastRequests)
		err = fusefs.Unmount(again, dir, true)
	}
	if err != nil {
		return fmt.Errorf("end the mount: %w", err)
	}
	select {
	case <-srv.Done():
	case <-again.Done():
	case <-time.After(lastRequests):
	}
	return nil
}

// generation is what the server asks after changes of its own.
func generation(ctx context.Context, st *store.Store) func() uint64 {
	return func() uint64 {
		var gen uint64
		// On an error the watch tells of the generation later.
		_ = st.View(ctx, func(t *store.Tx) error { gen = t.Generation(); return nil })
		return gen
	}
}

// watch makes the kernel let go of what it cached whenever the store changes,
// before the change shows in events. The returned function ends it.
func watch(ctx context.Context, st *store.Store, srv *fusefs.Server) (stop func()) {
	ctx = context.WithoutCancel(ctx)
	// It fails only when the server has ended.
	return st.Subscribe(func(gen uint64) { _ = srv.Invalidate(ctx, gen) })
}
