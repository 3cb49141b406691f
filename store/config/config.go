package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// Value is a setting and where it came from.
type Value struct {
	Text string
	// From is for readers: "--root", "$STORAGE_DRIVER", "/etc/…/storage.conf:12",
	// "default", …
	From string
}

// Option is an option of the storage driver.
type Option struct {
	// Key is without the driver's name: "mountopt".
	Key string
	Value
}

// Warning is something in a configuration file that has no effect.
type Warning struct {
	File string
	Line int // from 1; 0 when not known
	Text string
	// Unknown is set for a key that nobody knows, most likely misspelt.
	Unknown bool
}

// String returns "file:line: text".
func (w Warning) String() string { return place(w.File, w.Line) + ": " + w.Text }

// Config says which store to open and how.
type Config struct {
	// GraphRoot and RunRoot are absolute paths.
	GraphRoot, RunRoot, Driver Value
	// RootlessStoragePath is where users' graph roots are, as it was written;
	// it counts for a user whose files name no graph root.
	RootlessStoragePath Value
	// ImageStore is the graph root that new images are kept in, empty for
	// GraphRoot.
	ImageStore Value
	// ImageStores are graph roots of additional read-only stores.
	ImageStores []Value
	// LayerStores are additional layer stores, "PATH" or "PATH:ref".
	LayerStores []Value
	Options     []Option
	// TransientStore and DisableVolatile read as booleans; empty is false.
	TransientStore, DisableVolatile Value
	// DriverPriority is in what order drivers are tried for a new store.
	DriverPriority []Value
	Remap          Remap
	AutoUserns     AutoUserns
	// PullOptions are kept for who pulls images; plyfs does not.
	PullOptions []Option
	// File is the storage.conf that was read, or "", and Files that and all
	// drop-ins, in the order in which they were laid over each other.
	File     string
	Files    []string
	Warnings []Warning
}

// Flags are what the command line named; empty means not named.
type Flags struct {
	Root, RunRoot, Driver, ImageStore string
	TransientStore                    bool
	// Options are "driver.key=value", "key=value" or ".key=value".
	Options []string
}

// Machine is what Load looks at.
type Machine struct {
	// Getenv returns an environment variable, or "".
	Getenv func(string) string
	// UID is the user's ID outside of any user namespace that podman made.
	UID int
	// System are the system's storage.conf files, the first that exists wins.
	// Drop-ins are in folders beside them (storage.conf.d and so on).
	System []string
	// UserConfig is the folder of a user's settings where XDG_CONFIG_HOME is
	// not set; "" for the usual one.
	UserConfig string
	// SubUID and SubGID are the files of subordinate IDs.
	SubUID, SubGID string
	// Drivers are those to try for a new store, the best first; nil for all.
	Drivers []string
	// Usable tells whether a new store of a driver can be made in graphRoot;
	// nil means that any can. See Prober.
	Usable func(driver, graphRoot string) bool
	// GraphRoot and RunRoot are root's defaults.
	GraphRoot, RunRoot string
	// Dir is the working directory, for relative paths of flags.
	Dir string
	// UserRun is the folder of users' run folders, "/run/user".
	UserRun string
}

// Here is the machine and the user that the process runs as.
func Here() (Machine, error) {
	dir, err := os.Getwd()
	if err != nil {
		return Machine{}, fmt.Errorf("find the working directory: %w", err)
	}
	m := system(os.Getenv)
	m.Getenv, m.Dir = os.Getenv, dir
	return m, nil
}

// outerUID returns the user that stands behind `podman unshare`, whose
// processes show UID 0.
func outerUID(getenv func(string) string, uid int) int {
	var outer int
	if getenv("_CONTAINERS_USERNS_CONFIGURED") == "" {
		return uid
	}
	if _, err := fmt.Sscanf(getenv("_CONTAINERS_ROOTLESS_UID"), "%d", &outer); err != nil {
		return uid
	}
	return outer
}

// Load finds the settings. See the package comment; it changes nothing.
func Load(m Machine, f Flags) (*Config, error) {
	l := loader{m: m, c: &Config{}, conf: settings{}}
	for _, step := range []func() error{
		l.files,
		func() error { return l.roots(f) },
		func() error { return l.driver(f.Driver) },
		func() error { return l.options(f) },
		func() error { return l.modes(f) },
		l.remap,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return l.c, nil
}

// Strict is the error of the first key that nobody knows, for programs that
// would rather not open a store than the wrong one.
func (c *Config) Strict() error {
	for _, w := range c.Warnings {
		if w.Unknown {
			return errno.New(errno.ErrBadValue, "%s: correct it or take it out, or name another file with %s", w, envConf)
		}
	}
	return nil
}

// StoreOptions returns what store.Open needs to open that store.
func (c *Config) StoreOptions(newDriver func(drivers.Config) (drivers.Driver, error), lockTimeout time.Duration, log *logrus.Entry) store.Options {
	o := store.Options{
		GraphRoot: c.GraphRoot.Text, RunRoot: c.RunRoot.Text, DriverName: c.Driver.Text,
		NewDriver: newDriver, LockTimeout: lockTimeout, Log: log, Maps: c.Remap.Maps,
	}
	// The schema saw that they are booleans; empty is false.
	o.DisableVolatile, _ = strconv.ParseBool(c.DisableVolatile.Text)
	o.Transient, _ = strconv.ParseBool(c.TransientStore.Text)
	o.Auto = c.AutoUserns.maps()
	o.ImageStore = c.ImageStore.Text
	for _, s := range c.ImageStores {
		o.ImageStores = append(o.ImageStores, s.Text)
	}
	for _, v := range c.LayerStores {
		if l, err := store.ParseLayerStore(v.Text); err == nil { // Load saw that it is one
			o.LayerStores = append(o.LayerStores, l)
		}
	}
	for _, opt := range c.Options {
		if opt.Key == "sync" { // the store's own, whatever the driver
			o.Sync = store.SyncPolicy(opt.Text)
			continue
		}
		if opt.Key == "dedup" { // likewise
			o.Dedup, _ = strconv.ParseBool(opt.Text)
			continue
		}
		o.DriverOptions = append(o.DriverOptions, drivers.Option{Key: opt.Key, Value: opt.Text})
	}
	return o
}

func place(file string, line int) string {
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}

// absolute makes a path of the command line absolute.
func absolute(dir, path, flag string) (string, error) {
	if strings.ContainsRune(path, 0) {
		return "", errno.New(errno.ErrBadValue, "%s: a path cannot hold a zero byte", flag)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	return filepath.Clean(path), nil
}
