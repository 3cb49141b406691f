package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plyfs/plyfs/internal/errno"
)

// Variables that name configuration files.
const (
	envConf     = "CONTAINERS_STORAGE_CONF"
	envOverride = "CONTAINERS_STORAGE_CONF_OVERRIDE"
)

// files reads storage.conf and its drop-ins into l.conf.
func (l *loader) files() error {
	if path := l.m.Getenv(envConf); path != "" {
		if err := l.named(path, envConf); err != nil {
			return err
		}
		l.c.File = path
	} else if err := errors.Join(l.mainFile(), l.dropIns()); err != nil {
		return err
	}
	if path := l.m.Getenv(envOverride); path != "" {
		return l.named(path, envOverride)
	}
	return nil
}

// named reads a file that a variable names: it must be there.
func (l *loader) named(path, variable string) error {
	f, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return errno.New(errno.ErrUnknown, "$%s names %s, which does not exist: make it or unset the variable", variable, path)
	}
	if err != nil {
		return err
	}
	l.use(f, nil)
	return nil
}

func (l *loader) use(f *file, keep func(string) bool) {
	l.conf.add(f, keep)
	l.c.Files = append(l.c.Files, f.path)
	l.c.Warnings = append(l.c.Warnings, f.warnings...)
}

// mainFile reads the first storage.conf that exists: the user's own, else one
// of the system's, of which an ordinary user gets two keys only (the rest is
// root's; podman does the same).
func (l *loader) mainFile() error {
	paths := slices.Clone(l.m.System)
	user := l.userFile()
	if user != "" {
		paths = slices.Insert(paths, 0, user)
	}
	for _, path := range paths {
		f, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		var keep func(string) bool
		if l.rootless() && path != user {
			keep = func(key string) bool { return key == "storage.driver" || key == "storage.rootless_storage_path" }
		}
		l.use(f, keep)
		l.c.File = path
		return nil
	}
	return nil
}

// userFile is where a user's storage.conf is, or "". Root has one only where
// XDG_CONFIG_HOME is set.
func (l *loader) userFile() string {
	dir := l.m.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home := l.m.Getenv("HOME")
		switch {
		case l.m.UserConfig != "":
			return filepath.Join(l.m.UserConfig, "containers", "storage.conf")
		case !l.rootless() || home == "":
			return ""
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "containers", "storage.conf")
}

// dropIns lays the drop-ins over the main file, in the order of their names;
// of two with one name only that of the more particular folder counts
// (containers-config(5)).
func (l *loader) dropIns() error {
	found := map[string]string{}
	for _, dir := range l.dropInDirs() {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look for drop-ins of storage.conf: %w", err)
		}
		for _, e := range entries {
			if !e.IsDir() && strings.HasSuffix(e.Name(), ".conf") {
				found[e.Name()] = filepath.Join(dir, e.Name())
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		f, err := readFile(found[name])
		if errors.Is(err, fs.ErrNotExist) {
			continue // a link that leads nowhere, or gone meanwhile
		}
		if err != nil {
			return err
		}
		l.use(f, nil)
	}
	return nil
}

// dropInDirs are the folders of drop-ins, the most general first.
func (l *loader) dropInDirs() []string {
	var dirs []string
	for _, path := range slices.Backward(l.m.System) {
		base := strings.TrimSuffix(path, ".conf")
		dirs = append(dirs, base+".conf.d")
		if l.rootless() {
			rootless := base + ".rootless.conf.d"
			dirs = append(dirs, rootless, filepath.Join(rootless, fmt.Sprint(l.m.UID)))
		} else {
			dirs = append(dirs, base+".rootful.conf.d")
		}
	}
	if path := l.userFile(); path != "" {
		dirs = append(dirs, path+".d")
	}
	return dirs
}
