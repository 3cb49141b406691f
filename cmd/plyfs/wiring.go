package main

import (
	"context"
	"os"

	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/cmd/opening"
	"github.com/plyfs/plyfs/fsview"
	fuseoverlay "github.com/plyfs/plyfs/fuse-overlay"
	"github.com/plyfs/plyfs/internal/hosttree"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
	"github.com/plyfs/plyfs/store/config"
)

// openStore finds the store that flags, environment and storage.conf name,
// and opens it. The caller closes it.
func (a *app) openStore(ctx context.Context, o opening.Options) (*store.Store, *config.Config, error) {
	o.Flags, o.Strict, o.RootFlag, o.Log = a.flags, true, "--root", a.log
	return opening.Store(ctx, o)
}

// openTree returns the control tree of a store.
func openTree(st *store.Store, conf *config.Config, o mountOptions, log *logrus.Entry) (*fsview.FS, error) {
	own := owner{uint32(os.Getuid()), uint32(os.Getgid())}
	if o.owner != nil {
		own = *o.owner
	}
	return fsview.New(fsview.Options{
		Store:  st,
		Config: fsview.Config{Options: conf.Lines(), StorageConf: conf.TOML()},
		Trees:  newTrees(), ContainerOwners: o.containerOwners,
		Version: version, MountPoint: o.mountPoint, Log: log, Requests: o.requests,
		HideTrees: o.hideTrees, ShowStreams: o.showStreams, ShowDirs: o.showDirs, KeepDrafts: o.keepDrafts, ReadOnly: o.readOnly, BigDataLimit: o.bigDataLimit,
		UID: own.uid, GID: own.gid, Delegated: own.uid != uint32(os.Getuid()), Umask: o.umask,
	})
}

// trees makes the trees that fsview shows but does not know.
type trees struct {
	cache *fuseoverlay.Cache
	// single: this process has one ID, and the owners of layers are in attributes.
	single bool
}

// openDirs bounds the descriptors that all merged trees keep open together.
const openDirs = 512

func newTrees() trees { return trees{fuseoverlay.NewCache(openDirs), store.SingleID()} }

var _ fsview.Trees = trees{}

// Union is the read-only union of layers, served by the overlay engine. The
// tree holds no more than what its nodes do, and those are forgotten one by
// one; its descriptors are the shared cache's.
func (t trees) Union(key string, layers []fsview.TreeLayer) (vnode.Node, error) {
	c := fuseoverlay.Config{Key: key, Cache: t.cache, Recorded: t.single}
	for _, l := range layers {
		c.Layers = append(c.Layers, fuseoverlay.Layer{Name: l.ID, Dir: l.Dir, Volatile: l.Volatile, Owners: l.Owners})
	}
	tree, err := fuseoverlay.Open(c)
	if err != nil {
		return nil, err
	}
	return tree.Root(), nil
}

// Window is a read-write view of a host directory. What is made through it
// belongs to who made it when this process may give files away.
func (t trees) Window(key, path string, owners *idmap.Maps) (vnode.Node, error) {
	w, err := hosttree.Open(key, path, hosttree.Options{Owners: os.Geteuid() == 0, Shown: owners})
	if err != nil {
		return nil, err
	}
	return w.Root(), nil
}
