package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	// ImageStores are graph roots of additional read-only stores.
	ImageStores []Value
	Options     []Option
	// File is the storage.conf that was read, or "".
	File     string
	Warnings []Warning
}

// Flags are what the command line named; empty means not named.
type Flags struct {
	Root, RunRoot, Driver string
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
	System []string
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
	return Machine{
		Getenv: os.Getenv, UID: outerUID(os.Getenv, os.Geteuid()), Dir: dir, UserRun: "/run/user",
		GraphRoot: "/var/lib/containers/storage", RunRoot: "/run/containers/storage",
		System: []string{"/etc/containers/storage.conf", "/usr/share/containers/storage.conf"},
	}, nil
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

// drivers that exist; those that plyfs cannot use are refused by its caller.
func knownDriver(name string) bool {
	return slices.Contains([]string{"overlay", "vfs", "btrfs", "zfs"}, name)
}

// Load finds the settings. See the package comment; it changes nothing.
func Load(m Machine, f Flags) (*Config, error) {
	c := &Config{}
	l := loader{m: m, c: c}
	if err := l.file(); err != nil {
		return nil, err
	}
	if err := l.roots(f); err != nil {
		return nil, err
	}
	if err := l.driver(f.Driver); err != nil {
		return nil, err
	}
	if err := l.options(f); err != nil {
		return nil, err
	}
	return c, nil
}

// StoreOptions returns what store.Open needs to open that store.
func (c *Config) StoreOptions(newDriver func(drivers.Config) (drivers.Driver, error), lockTimeout time.Duration, log *logrus.Entry) store.Options {
	o := store.Options{
		GraphRoot: c.GraphRoot.Text, RunRoot: c.RunRoot.Text, DriverName: c.Driver.Text,
		NewDriver: newDriver, LockTimeout: lockTimeout, Log: log,
	}
	for _, s := range c.ImageStores {
		o.ImageStores = append(o.ImageStores, s.Text)
	}
	for _, opt := range c.Options {
		o.DriverOptions = append(o.DriverOptions, drivers.Option{Key: opt.Key, Value: opt.Text})
	}
	return o
}

// Lines returns the options as "driver.key=value", sorted as they were given.
func (c *Config) Lines() []string {
	lines := make([]string, 0, len(c.Options)+len(c.ImageStores))
	for _, s := range c.ImageStores {
		lines = append(lines, c.Driver.Text+".imagestore="+s.Text)
	}
	for _, o := range c.Options {
		lines = append(lines, c.Driver.Text+"."+o.Key+"="+o.Text)
	}
	return lines
}

// TOML returns the settings in the form of a storage.conf, each line with
// where its value came from.
func (c *Config) TOML() []byte {
	var b strings.Builder
	line := func(key string, v Value) { fmt.Fprintf(&b, "%s = %s # %s\n", key, quote(v.Text), v.From) }
	b.WriteString("[storage]\n")
	line("driver", c.Driver)
	line("graphroot", c.GraphRoot)
	line("runroot", c.RunRoot)
	if len(c.ImageStores) > 0 {
		b.WriteString("\n[storage.options]\nadditionalimagestores = [\n")
		for _, s := range c.ImageStores {
			fmt.Fprintf(&b, "  %s, # %s\n", quote(s.Text), s.From)
		}
		b.WriteString("]\n")
	}
	if len(c.Options) > 0 {
		fmt.Fprintf(&b, "\n[storage.options.%s]\n", c.Driver.Text)
		for _, o := range c.Options {
			line(o.Key, o.Value)
		}
	}
	return []byte(b.String())
}

// quote returns s as a basic string of TOML.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
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
