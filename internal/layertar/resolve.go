package layertar

import (
	"errors"
	"path"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/whiteout"
)

const (
	maxLinks    = 40 // symlinks on the way of one name, as the kernel's limit
	maxSteps    = 4096
	maxDirCache = 64 // open directories
)

// parent is locate without the name.
func (a *applier) parent(h *header, dir string, create bool) (*openDir, error) {
	d, _, err := a.locate(h, dir, create)
	return d, err
}

// locate returns the directory at the clean path dir, made where it is
// missing when create is set, and its real path, which has no symlink in it.
// It stays the cache's. Symlinks in the layer are followed as in a chroot:
// absolute ones from the layer's root. One that climbs over the root, or leads to
// what is not in the layer, is refused.
func (a *applier) locate(h *header, dir string, create bool) (*openDir, string, error) {
	if dir == "" {
		return a.root, "", nil
	}
	if d := a.dirs[dir]; d != nil {
		return d, dir, nil
	}
	top, err := a.root.OpenDirAt(dir, safefs.NoSymlinks)
	if err == nil {
		return a.keep(dir, top), dir, nil
	}
	if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ELOOP) && !errors.Is(err, syscall.ENOTDIR) {
		return nil, "", err
	}
	if at, ok := a.links[dir]; ok {
		return a.locate(h, at, false)
	}
	w := walk{a: a, h: h, create: create}
	d, err := w.run(dir)
	at := strings.Join(w.stack, "/")
	if err == nil && create && w.links > 0 {
		if len(a.links) >= maxDirCache {
			clear(a.links)
		}
		a.links[dir] = at
	}
	return d, at, err
}

// keep puts an open directory into the cache by its real path, of which it empties all when
// it is full: streams go through directories in runs.
func (a *applier) keep(dir string, d *safefs.Dir) *openDir {
	if len(a.dirs) >= maxDirCache {
		a.forget()
	}
	od := newOpenDir(d)
	a.dirs[dir] = od
	return od
}

// forget closes all cached directories: one of them may have been replaced.
func (a *applier) forget() {
	for dir, d := range a.dirs {
		a.closeErr = errors.Join(a.closeErr, d.Close())
		delete(a.dirs, dir)
	}
}

// walk resolves one path component by component. The directory is the
// import's alone while it runs, and nothing is followed by the kernel.
type walk struct {
	a      *applier
	h      *header
	create bool
	stack  []string // the real components so far, no symlink among them
	links  int
	steps  int
}

type step struct {
	name     string
	fromLink bool // it stood in a symlink's text
}

func (w *walk) run(dir string) (*openDir, error) {
	todo := steps(dir, false)
	for len(todo) > 0 {
		s := todo[0]
		todo = todo[1:]
		if w.steps++; w.steps > maxSteps {
			return nil, refuse(w.h, "its path has too many components through symbolic links")
		}
		if s.name == ".." {
			if len(w.stack) == 0 {
				return nil, refuse(w.h, "its path leads out of the layer through a symbolic link")
			}
			w.stack = w.stack[:len(w.stack)-1]
			continue
		}
		more, err := w.enter(s)
		if err != nil {
			return nil, err
		}
		todo = append(more, todo...)
	}
	return w.here()
}

func steps(p string, fromLink bool) []step {
	var out []step
	for _, c := range strings.Split(p, "/") {
		if c != "" && c != "." {
			out = append(out, step{c, fromLink})
		}
	}
	return out
}

// here opens the directory that the stack names, which has no symlink in it.
func (w *walk) here() (*openDir, error) {
	dir := strings.Join(w.stack, "/")
	if dir == "" {
		return w.a.root, nil
	}
	if d := w.a.dirs[dir]; d != nil {
		return d, nil
	}
	d, err := w.a.root.OpenDirAt(dir, safefs.NoSymlinks)
	if err != nil {
		return nil, err
	}
	return w.a.keep(dir, d), nil
}

// enter goes one component down; for a symlink it returns the steps of its
// text instead.
func (w *walk) enter(s step) ([]step, error) {
	d, err := w.here()
	if err != nil {
		return nil, err
	}
	st, err := d.Stat(s.name)
	switch {
	case errors.Is(err, syscall.ENOENT):
		if s.fromLink {
			return nil, refuse(w.h, "its path goes through a symbolic link that leads out of the layer or to nothing in it")
		}
		if !w.create {
			return nil, refuse(w.h, "no such directory in the layer: "+path.Join(append(w.stack, s.name)...))
		}
		w.stack = append(w.stack, s.name)
		return nil, w.a.mkImplied(d, s.name, strings.Join(w.stack, "/"), false)
	case err != nil:
		return nil, err
	case st.IsDir():
		w.stack = append(w.stack, s.name)
		return nil, nil
	case st.Type() == syscall.S_IFLNK:
		return w.follow(d, s)
	case w.create && whiteout.IsDevice(st.Mode, st.Rdev) && w.a.o.Style != whiteout.Apply:
		if err := d.Unlink(s.name); err != nil {
			return nil, err
		}
		w.stack = append(w.stack, s.name)
		return nil, w.a.mkImplied(d, s.name, strings.Join(w.stack, "/"), true)
	}
	return nil, refuse(w.h, "not a directory: "+path.Join(append(w.stack, s.name)...))
}

func (w *walk) follow(d *openDir, s step) ([]step, error) {
	if w.links++; w.links > maxLinks {
		return nil, refuse(w.h, "its path goes through too many symbolic links")
	}
	text, err := d.Readlink(s.name)
	if err != nil {
		return nil, err
	}
	if w.create { // the member's name leads through it, in the record as well
		if err := w.a.mark(path.Join(append(w.stack, s.name)...)); err != nil {
			return nil, err
		}
	}
	if strings.HasPrefix(text, "/") {
		w.stack = w.stack[:0]
	}
	return steps(text, true), nil
}

// mkImplied makes a directory that members need and the stream does not name:
// mode 0755, the container's root as owner. opaque is set when it takes a
// whiteout's place.
func (a *applier) mkImplied(d *openDir, name, full string, opaque bool) error {
	if err := d.mkdir(name, 0o755); err != nil {
		return err
	}
	o := op{perm: 0o755}
	if _, err := a.owner(d, name, &o, "dir"); err != nil {
		return err
	}
	if err := d.Chmod(name, 0o755); err != nil {
		return err
	}
	switch {
	case opaque:
		return a.markOpaque(d.Dir, name)
	case a.o.Style == whiteout.Files && a.marked:
		return a.unhideIn(d.Dir, name, full, true)
	}
	return nil
}
