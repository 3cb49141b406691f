// Package opening finds and opens a store as the commands do: the flags, the
// environment and storage.conf say which, and this is the one place that knows
// all drivers.
package opening

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
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
	"github.com/plyfs/plyfs/store/config"
)

// Constructor makes a driver.
type Constructor = func(drivers.Config) (drivers.Driver, error)

// DriverNamed returns the constructor of a driver.
func DriverNamed(name string) (Constructor, error) {
	switch name {
	case "overlay":
		return overlay.New, nil
	case "vfs":
		return vfs.New, nil
	}
	return nil, errno.New(errno.ErrNotSupported, "plyfs cannot open stores of the driver %s: only those of overlay and vfs", name)
}

// Options say what to open.
type Options struct {
	// Flags are what the command line named.
	Flags config.Flags
	// File is the storage.conf to use in place of the usual ones, or "".
	File string
	// LockTimeout bounds each wait for a lock; 0 is the store's default.
	LockTimeout time.Duration
	// Create makes a store where there is none; ReadOnly changes nothing.
	Create, ReadOnly bool
	// Strict refuses a storage.conf with keys that nobody knows, rather than
	// to warn: who misspells a key would get another store.
	Strict bool
	// Brief is for a process that does one thing and ends; see store.Options.
	Brief bool
	// RemoveWithin is for servers; see store.Options.
	RemoveWithin time.Duration
	// RootFlag is the command's flag for the graph root, for advice.
	RootFlag string
	Log      *logrus.Entry
}

// Config finds out which store the options mean. It opens nothing.
func Config(o Options) (*config.Config, error) {
	conf, err := load(o)
	if err == nil {
		warn(conf, o)
	}
	return conf, err
}

func warn(conf *config.Config, o Options) {
	for _, w := range conf.Warnings {
		o.Log.Warn(w)
	}
}

func load(o Options) (*config.Config, error) {
	here, err := config.Here()
	if err != nil {
		return nil, err
	}
	if o.File != "" {
		getenv := here.Getenv
		here.Getenv = func(name string) string {
			if name == "CONTAINERS_STORAGE_CONF" {
				return o.File
			}
			return getenv(name)
		}
	}
	if o.Create {
		here.Usable = config.Prober(DriverNamed)
	}
	conf, err := config.Load(here, o.Flags)
	if err != nil {
		return nil, err
	}
	if o.Strict {
		if err := conf.Strict(); err != nil {
			return nil, err
		}
	}
	return conf, nil
}

// Store opens the store that the options mean. The caller closes it.
func Store(ctx context.Context, o Options) (*store.Store, *config.Config, error) {
	conf, err := load(o)
	if err != nil {
		return nil, nil, err
	}
	if fi, err := os.Stat(conf.GraphRoot.Text); err == nil && !fi.IsDir() {
		return nil, nil, errno.New(errno.ErrNotDir, "%s (%s) is not a directory and holds no store: name the store's directory with %s",
			conf.GraphRoot.Text, conf.GraphRoot.From, o.RootFlag)
	}
	warn(conf, o)
	newDriver, err := DriverNamed(conf.Driver.Text)
	if err != nil {
		return nil, nil, err
	}
	so := conf.StoreOptions(newDriver, o.LockTimeout, o.Log)
	so.MustExist, so.ReadOnly, so.Brief = !o.Create, o.ReadOnly, o.Brief
	so.RemoveWithin = o.RemoveWithin
	st, err := store.Open(ctx, so)
	switch {
	case !o.Create && errors.Is(err, fs.ErrNotExist):
		return nil, nil, errno.New(errno.ErrUnknown, "there is no %s store in %s (%s): name another with %s and --storage-driver, or make an empty one with plyfs mount --create (without a mount: plyfs mkdir --create)",
			so.DriverName, so.GraphRoot, conf.GraphRoot.From, o.RootFlag)
	case errors.Is(err, fs.ErrPermission):
		return nil, nil, errno.New(errno.ErrForbidden, "the store in %s (%s) may not be opened by this user: %w: name another one with %s",
			so.GraphRoot, conf.GraphRoot.From, err, o.RootFlag)
	case err != nil:
		return nil, nil, fmt.Errorf("open the store: %w", err)
	}
	return st, conf, nil
}
