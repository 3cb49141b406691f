package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/internal/errno"
)

// loader is one Load at work; it fills c.
type loader struct {
	m    Machine
	c    *Config
	conf *file // the storage.conf in use, or nil
	// system is the system's file when conf is not it: of a user's settings
	// only two come from there.
	system *file
	libpod libpod
}

func (l *loader) rootless() bool { return l.m.UID != 0 }

// file finds and reads storage.conf.
func (l *loader) file() error {
	if path := l.m.Getenv("CONTAINERS_STORAGE_CONF"); path != "" {
		conf, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return errno.New(errno.ErrUnknown, "$CONTAINERS_STORAGE_CONF names %s, which does not exist: make it or unset the variable", path)
		}
		return l.use(conf, err)
	}
	if path := l.userFile(); path != "" {
		conf, err := readFile(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return l.use(conf, err)
		}
	}
	for _, path := range l.m.System {
		conf, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && l.rootless() {
			l.system, l.c.File = conf, path
			l.c.Warnings = conf.warnings
			return nil
		}
		return l.use(conf, err)
	}
	return nil
}

func (l *loader) use(conf *file, err error) error {
	if err != nil {
		return err
	}
	l.conf, l.c.File, l.c.Warnings = conf, conf.path, conf.warnings
	return conf.refuse()
}

// userFile is where a user's storage.conf is, or "". Root has one only where
// XDG_CONFIG_HOME is set.
func (l *loader) userFile() string {
	dir := l.m.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home := l.m.Getenv("HOME")
		if !l.rootless() || home == "" {
			return ""
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "containers", "storage.conf")
}

// setting returns a text setting of the file in use.
func (l *loader) setting(key string) (Value, bool) {
	if l.conf == nil {
		return Value{}, false
	}
	return l.conf.text(key)
}

// expand replaces $HOME, $UID and other variables in a path of storage.conf.
func (l *loader) expand(v Value) (Value, error) {
	v.Text = os.Expand(v.Text, func(name string) string {
		if name == "UID" {
			return fmt.Sprint(l.m.UID)
		}
		return l.m.Getenv(name)
	})
	if !filepath.IsAbs(v.Text) {
		return v, errno.New(errno.ErrBadValue, "%s: %q is not an absolute path: write it from / on", v.From, v.Text)
	}
	v.Text = filepath.Clean(v.Text)
	return v, nil
}

// roots settles the graph root and the run root.
func (l *loader) roots(f Flags) (err error) {
	if l.c.GraphRoot, err = l.graphRoot(f.Root); err != nil {
		return err
	}
	l.libpod, err = readLibpod(filepath.Join(l.c.GraphRoot.Text, "libpod", "bolt_state.db"))
	if err != nil {
		l.c.Warnings = append(l.c.Warnings, Warning{File: l.libpod.path, Text: err.Error()})
	}
	l.c.RunRoot, err = l.runRoot(f.RunRoot)
	return err
}

func (l *loader) graphRoot(flag string) (Value, error) {
	if flag != "" {
		path, err := absolute(l.m.Dir, flag, "--root")
		return Value{path, "--root"}, err
	}
	if v, ok := l.setting("graphroot"); ok {
		return l.expand(v)
	}
	if !l.rootless() {
		return Value{l.m.GraphRoot, "default"}, nil
	}
	conf := l.conf
	if conf == nil {
		conf = l.system
	}
	if conf != nil {
		if v, ok := conf.text("rootless_storage_path"); ok {
			return l.expand(v)
		}
	}
	if dir := l.m.Getenv("XDG_DATA_HOME"); dir != "" {
		return l.expand(Value{filepath.Join(dir, "containers", "storage"), "$XDG_DATA_HOME"})
	}
	home := l.m.Getenv("HOME")
	if home == "" {
		return Value{}, errno.New(errno.ErrBadValue, "neither XDG_DATA_HOME nor HOME is set, so there is no default store: name one with --root")
	}
	return l.expand(Value{filepath.Join(home, ".local", "share", "containers", "storage"), "default"})
}

func (l *loader) runRoot(flag string) (Value, error) {
	if flag != "" {
		path, err := absolute(l.m.Dir, flag, "--runroot")
		return Value{path, "--runroot"}, err
	}
	if v := l.libpod.runRoot; v != "" && filepath.IsAbs(v) {
		return Value{filepath.Clean(v), l.libpod.path}, nil
	}
	if v, ok := l.setting("runroot"); ok {
		return l.expand(v)
	}
	if !l.rootless() {
		return Value{l.m.RunRoot, "default"}, nil
	}
	if dir := l.m.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return l.expand(Value{filepath.Join(dir, "containers"), "$XDG_RUNTIME_DIR"})
	}
	uid := fmt.Sprint(l.m.UID)
	dir := filepath.Join(l.m.UserRun, uid)
	if !ownedBy(dir, l.m.UID) {
		dir = filepath.Join(os.TempDir(), "podman-run-"+uid)
	}
	return Value{filepath.Join(dir, "containers"), "default"}, nil
}

func ownedBy(path string, uid int) bool {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == uid
}

// driver settles the driver's name.
func (l *loader) driver(flag string) error {
	// A mistake in the file is told even where something else wins.
	if v, ok := l.setting("driver"); ok && !knownDriver(v.Text) && v.Text != "overlay2" {
		return errNoDriver(v)
	}
	v := l.chooseDriver(flag)
	if v.Text == "overlay2" { // the name that Docker gave it
		v.Text = "overlay"
	}
	if !knownDriver(v.Text) {
		return errNoDriver(v)
	}
	l.c.Driver = v
	return nil
}

func errNoDriver(v Value) error {
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
	conf := l.conf
	if conf == nil {
		conf = l.system
	}
	if conf != nil {
		if v, ok := conf.text("driver"); ok {
			return v
		}
	}
	for _, name := range []string{"overlay", "btrfs", "zfs", "vfs"} {
		if _, err := os.Stat(filepath.Join(l.c.GraphRoot.Text, name+"-layers")); err == nil {
			return Value{name, "the store in " + l.c.GraphRoot.Text}
		}
	}
	return Value{"overlay", "default"}
}

// options settles the driver's options and the additional image stores.
func (l *loader) options(f Flags) error {
	given, from := f.Options, "--storage-opt"
	if len(given) == 0 && f.Root == "" {
		if env := l.m.Getenv("STORAGE_OPTS"); env != "" {
			given, from = strings.Split(env, ","), "$STORAGE_OPTS"
		}
	}
	for _, text := range given {
		if err := l.option(text, from); err != nil {
			return err
		}
	}
	if len(given) == 0 && f.Root == "" && l.conf != nil {
		return l.conf.options(l.c)
	}
	return nil
}

func (l *loader) option(text, from string) error {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" {
		return errno.New(errno.ErrBadValue, "%s %q: write an option as key=value", from, text)
	}
	if prefix, rest, dotted := strings.Cut(key, "."); dotted {
		if prefix != "" && prefix != "storage" && prefix != l.c.Driver.Text {
			return errno.New(errno.ErrBadValue, "%s %q: an option for the driver %q, but the store's driver is %s", from, text, prefix, l.c.Driver.Text)
		}
		key = rest
	}
	v := Value{value, from}
	switch key {
	case "":
		return errno.New(errno.ErrBadValue, "%s %q: the option has no name", from, text)
	case "imagestore", "additionalimagestore", "additionalimagestores":
		for path := range strings.SplitSeq(value, ",") {
			if !filepath.IsAbs(path) {
				return errno.New(errno.ErrBadValue, "%s: the image store %q is not an absolute path: write it from / on", from, path)
			}
			l.c.ImageStores = append(l.c.ImageStores, Value{filepath.Clean(path), from})
		}
	default:
		l.c.Options = append(l.c.Options, Option{key, v})
	}
	return nil
}
