package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/plyfs/plyfs/internal/errno"
)

// loader is one Load at work; it fills c.
type loader struct {
	m      Machine
	c      *Config
	conf   settings // of all files
	libpod libpod
}

func (l *loader) rootless() bool { return l.m.UID != 0 }

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
	if v, ok := l.conf.text("graphroot"); ok {
		return l.expand(v)
	}
	if !l.rootless() {
		return Value{l.m.GraphRoot, "default"}, nil
	}
	if v, ok := l.conf.text("rootless_storage_path"); ok {
		return l.expand(v)
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
	if v, ok := l.conf.text("runroot"); ok {
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

// modes settles where images are kept and whether records are.
func (l *loader) modes(f Flags) (err error) {
	c := l.c
	switch v, ok := l.conf.text("imagestore"); {
	case f.ImageStore != "":
		c.ImageStore.From = "--image-store"
		c.ImageStore.Text, err = absolute(l.m.Dir, f.ImageStore, "--image-store")
	case ok && f.Root == "":
		c.ImageStore, err = l.expand(v)
	}
	if err == nil && c.ImageStore.Text == c.GraphRoot.Text {
		err = errno.New(errno.ErrBadValue, "%s: the image store is the graph root %s itself: name another directory, or leave it out", c.ImageStore.From, c.GraphRoot.Text)
	}
	switch v, ok := l.conf.text("transient_store"); {
	case f.TransientStore:
		c.TransientStore = Value{"true", "--transient-store"}
	case ok && f.Root == "":
		c.TransientStore = v
	}
	c.RootlessStoragePath = l.conf.value("rootless_storage_path")
	c.DisableVolatile = l.conf.value("options.disable-volatile")
	c.PullOptions = l.conf.table(pullTable)
	c.AutoUserns = AutoUserns{
		User:    l.conf.value("options.root-auto-userns-user"),
		MinSize: l.conf.value("options.auto-userns-min-size"), MaxSize: l.conf.value("options.auto-userns-max-size"),
	}
	return err
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
	if len(given) == 0 && f.Root == "" {
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
	case "additionallayerstore", "additionallayerstores":
		return l.c.addLayerStore(v)
	default:
		l.c.Options = append(l.c.Options, Option{key, v})
	}
	return nil
}
