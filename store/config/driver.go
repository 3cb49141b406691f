package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
)

// drivers that exist; those that a program cannot use are refused by it.
func knownDriver(name string) bool {
	return slices.Contains(bestDrivers(), name)
}

// bestDrivers are all drivers, in the order in which they are tried.
func bestDrivers() []string { return []string{"overlay", "btrfs", "zfs", "vfs"} }

// drivers are those to try for a new store on this system.
func (m Machine) drivers() []string {
	if m.Drivers == nil {
		return bestDrivers()
	}
	return m.Drivers
}

// driver settles the driver's name.
func (l *loader) driver(flag string) error {
	l.c.DriverPriority = l.conf["storage.driver_priority"].list
	// A mistake in the file is told even where something else wins.
	named := l.c.DriverPriority
	if v, ok := l.conf.text("driver"); ok {
		named = append([]Value{v}, named...)
	}
	v := l.chooseDriver(flag)
	for _, n := range append(named, v) {
		if n.Text != "overlay2" && !knownDriver(n.Text) {
			return errNoDriver(n)
		}
	}
	if v.Text == "overlay2" { // the name that Docker gave it
		v.Text = "overlay"
	}
	l.c.Driver = v
	return nil
}

func errNoDriver(v Value) error {
	switch v.Text {
	case "devmapper", "thinpool", "aufs":
		return errno.New(errno.ErrNotSupported, "%s: stores of the driver %s cannot be opened, as no tool keeps them any more: use overlay, vfs, btrfs or zfs", v.From, v.Text)
	}
	return errno.New(errno.ErrBadValue, "%s: there is no storage driver %q: use overlay, vfs, btrfs or zfs", v.From, v.Text)
}

func (l *loader) chooseDriver(flag string) Value {
	if flag != "" {
		return Value{flag, "--storage-driver"}
	}
	if name := l.m.Getenv("STORAGE_DRIVER"); name != "" {
		return Value{name, "$STORAGE_DRIVER"}
	}
	if name := l.libpod.driver; name != "" {
		return Value{name, l.libpod.path}
	}
	if v, ok := l.conf.text("driver"); ok {
		return v
	}
	root := l.c.GraphRoot.Text
	for _, name := range bestDrivers() {
		if _, err := os.Stat(filepath.Join(root, name+"-layers")); err == nil {
			return Value{name, "the store in " + root}
		}
	}
	candidates := slices.Clone(l.c.DriverPriority)
	for _, name := range l.m.drivers() {
		candidates = append(candidates, Value{name, "default"})
	}
	for _, v := range candidates {
		if l.m.Usable == nil || l.m.Usable(v.Text, root) {
			return v
		}
	}
	return Value{"vfs", "default"}
}

// Prober returns a Machine.Usable that makes the driver of constructors in an
// empty folder of the graph root's filesystem, and removes that again.
func Prober(constructors func(name string) (func(drivers.Config) (drivers.Driver, error), error)) func(driver, graphRoot string) bool {
	return func(driver, graphRoot string) bool {
		newDriver, err := constructors(driver)
		if err != nil {
			return false
		}
		dir, err := os.MkdirTemp(existing(graphRoot), ".plyfs-probe-")
		if err != nil {
			return false
		}
		_, err = newDriver(drivers.Config{Root: dir, RunRoot: dir})
		return errors.Join(err, os.RemoveAll(dir)) == nil
	}
}

// existing returns the nearest directory above path that is there.
func existing(path string) string {
	for {
		if info, err := os.Stat(path); err == nil && info.IsDir() || filepath.Dir(path) == path {
			return path
		}
		path = filepath.Dir(path)
	}
}
