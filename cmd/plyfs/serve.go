package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/cmd/opening"
	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/fsview/fusefs"
	"github.com/plyfs/plyfs/internal/detach"
	"github.com/plyfs/plyfs/internal/threads"
	"github.com/plyfs/plyfs/store"
)

// lastRequests is how long an unmount waits for programs that use the mount
// before their connection is cut.
const lastRequests = 3 * time.Second

const (
	// removeWithin is how long a request waits for the files of what it deleted:
	// while it does, the kernel answers no look-up in the directory.
	removeWithin = 50 * time.Millisecond
	// lastRemovals is how long an unmount waits for files of what was deleted.
	lastRemovals = 20 * time.Second
)

// serve mounts the tree on dir and serves it until it is unmounted or ctx
// ends; ready is called once it is mounted. An inner process serves the
// connection that it was given.
func (a *app) serve(ctx context.Context, dir string, o mountOptions, ready func() error) (err error) {
	if err := a.receive(); err != nil {
		return err
	}
	if o.create {
		if err := a.tryMount(ctx, dir, o); err != nil {
			return err
		}
	}
	st, conf, err := a.openStore(ctx, opening.Options{
		LockTimeout: o.lockTimeout, Create: o.create, ReadOnly: o.readOnly, RemoveWithin: removeWithin,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.closeStore(ctx, st)) }()
	var srv *fusefs.Server
	o.mountPoint = dir
	o.requests = func() []fsview.RequestCount { return countsOf(srv) }
	tree, err := openTree(st, conf, o, a.log)
	if err != nil {
		return err
	}
	// Mounts that were taken are given back even when ctx has ended.
	defer func() { err = errors.Join(err, tree.Close(context.WithoutCancel(ctx))) }()
	srv = fusefs.New(tree.Root(), a.serverOptions(ctx, st, o))
	dev, err := a.connect(ctx, dir, o)
	if err != nil {
		return err
	}
	if err := srv.Start(dev); err != nil {
		return errors.Join(err, a.disconnect(context.WithoutCancel(ctx), dir))
	}
	defer watch(ctx, st, srv)()
	if a.inner == nil {
		if err := announce(dir); err != nil {
			a.log.Warn(err)
		}
	}
	// The working directory must not keep other filesystems busy.
	if err := errors.Join(os.Chdir("/"), ready()); err != nil {
		return errors.Join(err, a.unmount(ctx, srv, dir))
	}
	threads.Spare()
	a.log.Infof("mounted %s (%s) on %s", st.GraphRoot(), st.DriverName(), dir)
	select {
	case <-srv.Done():
		return nil
	case <-ctx.Done():
		return a.unmount(ctx, srv, dir)
	}
}

// closeStore closes the store when what was deleted is removed, which is waited
// for a while: the next opening goes on with the rest.
func (a *app) closeStore(ctx context.Context, st *store.Store) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastRemovals)
	defer cancel()
	if err := st.WaitRemovals(ctx); err != nil {
		a.log.Warnf("files of %d deleted objects are left for the next opening of the store to remove", st.Removals())
	}
	return st.Close()
}

// countsOf are the server's counts, as the tree shows them.
func countsOf(srv *fusefs.Server) []fsview.RequestCount {
	list := srv.Requests()
	counts := make([]fsview.RequestCount, len(list))
	for i, r := range list {
		counts[i] = fsview.RequestCount(r)
	}
	return counts
}

// serverOptions differ where the mounter's namespace is not this one: owners
// are translated, and the server checks permissions, since the kernel would
// compare with IDs that the mounter does not have; and where owners are shown
// that are not those which count.
func (a *app) serverOptions(ctx context.Context, st *store.Store, m mountOptions) fusefs.Options {
	o := fusefs.Options{Log: a.log, Generation: generation(ctx, st), Trace: a.log.Logger.IsLevelEnabled(logrus.TraceLevel)}
	if a.inner != nil || m.containerOwners {
		o.Check = &fusefs.Check{UID: 0} // the mounting user, as numbered here
	}
	if a.inner != nil {
		o.Out, o.In = a.inner.maps.ToParent, a.inner.maps.FromParent
	}
	return o
}

// receive waits, in an inner process, for the connection.
func (a *app) receive() error {
	if a.inner == nil {
		return nil
	}
	dev, err := detach.Receive(a.inner.socket, "/dev/fuse")
	if errors.Is(err, io.EOF) {
		return exitStatus(1) // the outer process says why
	}
	a.device = dev
	return errors.Join(err, a.inner.socket.Close())
}

// connect mounts and returns the connection, or returns the one that the
// outer process made.
func (a *app) connect(ctx context.Context, dir string, o mountOptions) (*os.File, error) {
	if a.inner != nil {
		return a.device, nil
	}
	return fusefs.Mount(ctx, dir, fusefs.MountOptions{
		AllowOther: o.allowOther, DefaultPermissions: !o.containerOwners, ReadOnly: o.readOnly, NoExec: o.noExec,
	})
}

// tryMount mounts and unmounts: where that cannot be done no store is made
// either. An inner process has its connection already.
func (a *app) tryMount(ctx context.Context, dir string, o mountOptions) error {
	if a.inner != nil {
		return nil
	}
	dev, err := a.connect(ctx, dir, o)
	if err != nil {
		return err
	}
	return errors.Join(dev.Close(), fusefs.Unmount(ctx, dir, true))
}

// disconnect undoes connect.
func (a *app) disconnect(ctx context.Context, dir string) error {
	if a.inner != nil {
		return nil // the outer process will see this one end
	}
	return fusefs.Unmount(ctx, dir, true)
}

// announce lets plyfs umount wait for this process's end.
func announce(dir string) error {
	m, err := fusefs.MountAt(dir)
	if err != nil || m == nil {
		return err
	}
	return detach.Announce(detach.MountName(m.Major, m.Minor))
}

// unmount ends the mount after a signal: with a busy one it lets the mount
// vanish, gives programs a little time, and then cuts them off by ending.
func (a *app) unmount(ctx context.Context, srv *fusefs.Server, dir string) error {
	again, stop := signal.NotifyContext(context.WithoutCancel(ctx), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	if a.inner != nil {
		err = a.inner.end()
	} else {
		err = a.endMount(again, dir)
	}
	if err != nil {
		return fmt.Errorf("end the mount: %w", err)
	}
	select {
	case <-srv.Done():
		return nil
	case <-again.Done():
	case <-time.After(lastRequests):
	}
	srv.Abandon() // else the mounts behind merged/ stay in use by this process
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
