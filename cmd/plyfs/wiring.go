package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/overlay"
	"github.com/plyfs/plyfs/drivers/vfs"
	"github.com/plyfs/plyfs/fsview"
	fuseoverlay "github.com/plyfs/plyfs/fuse-overlay"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/hosttree"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
	"github.com/plyfs/plyfs/store/config"
)

// constructor makes a driver.
type constructor = func(drivers.Config) (drivers.Driver, error)

// driverNamed returns the constructor of a driver: the one place that knows
// all of them.
func driverNamed(name string) (constructor, error) {
	switch name {
	case "overlay":
		return overlay.New, nil
	case "vfs":
		return vfs.New, nil
	}
	return nil, errno.New(errno.ErrNotSupported, "plyfs cannot open stores of the driver %s: only those of overlay and vfs", name)
}

// openStore finds the store that flags, environment and storage.conf name,
// and opens it. The caller closes it.
func (a *app) openStore(ctx context.Context, lockTimeout time.Duration, create, readOnly bool) (*store.Store, *config.Config, error) {
	here, err := config.Here()
	if err != nil {
		return nil, nil, err
	}
	if create {
		here.Usable = config.Prober(driverNamed)
	}
	conf, err := config.Load(here, a.flags)
	if err != nil {
		return nil, nil, err
	}
	if fi, err := os.Stat(conf.GraphRoot.Text); err == nil && !fi.IsDir() {
		return nil, nil, errno.New(errno.ErrNotDir, "%s (%s) is not a directory and holds no store: name the store's directory with --root", conf.GraphRoot.Text, conf.GraphRoot.From)
	}
	if err := conf.Strict(); err != nil {
		return nil, nil, err
	}
	for _, w := range conf.Warnings {
		a.log.Warn(w)
	}
	newDriver, err := driverNamed(conf.Driver.Text)
	if err != nil {
		return nil, nil, err
	}
	o := conf.StoreOptions(newDriver, lockTimeout, a.log)
	o.MustExist, o.ReadOnly = !create, readOnly
	st, err := store.Open(ctx, o)
	switch {
	case !create && errors.Is(err, fs.ErrNotExist):
		return nil, nil, errno.New(errno.ErrUnknown, "there is no %s store in %s (%s): name another with --root and --storage-driver, or make an empty one with plyfs mount --create",
			o.DriverName, o.GraphRoot, conf.GraphRoot.From)
	case errors.Is(err, fs.ErrPermission):
		return nil, nil, errno.New(errno.ErrForbidden, "the store in %s (%s) may not be opened by this user: %w: name another one with --root",
			o.GraphRoot, conf.GraphRoot.From, err)
	case err != nil:
		return nil, nil, fmt.Errorf("open the store: %w", err)
	}
	return st, conf, nil
}

// openTree returns the control tree of a store.
func openTree(st *store.Store, conf *config.Config, o mountOptions, log *logrus.Entry) (*fsview.FS, error) {
	return fsview.New(fsview.Options{
		Store:   st,
		Config:  fsview.Config{Options: conf.Lines(), StorageConf: conf.TOML()},
		Trees:   newTrees(),
		Version: version, Log: log,
		HideTrees: o.hideTrees, ShowStreams: o.showStreams, ShowDirs: o.showDirs, ReadOnly: o.readOnly, BigDataLimit: o.bigDataLimit,
		UID: uint32(os.Getuid()), GID: uint32(os.Getgid()),
	})
}

// trees makes the trees that fsview shows but does not know.
type trees struct{ cache *fuseoverlay.Cache }

// openDirs bounds the descriptors that all merged trees keep open together.
const openDirs = 512

func newTrees() trees { return trees{fuseoverlay.NewCache(openDirs)} }

var _ fsview.Trees = trees{}

// Union is the read-only union of layers, served by the overlay engine. The
// tree holds no more than what its nodes do, and those are forgotten one by
// one; its descriptors are the shared cache's.
func (t trees) Union(key string, layers []fsview.TreeLayer) (vnode.Node, error) {
	c := fuseoverlay.Config{Key: key, Cache: t.cache}
	for _, l := range layers {
		c.Layers = append(c.Layers, fuseoverlay.Layer{Name: l.ID, Dir: l.Dir, Volatile: l.Volatile})
	}
	tree, err := fuseoverlay.Open(c)
	if err != nil {
		return nil, err
	}
	return tree.Root(), nil
}

// Window is a read-write view of a host directory. What is made through it
// belongs to who made it when this process may give files away.
func (t trees) Window(key, path string) (vnode.Node, error) {
	w, err := hosttree.Open(key, path, hosttree.Options{Owners: os.Geteuid() == 0})
	if err != nil {
		return nil, err
	}
	return w.Root(), nil
}
