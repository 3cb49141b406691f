package fsview_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/overlay"
	"github.com/plyfs/plyfs/drivers/vfs"
	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/hosttree"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

// world is a store that both the peers' program and our tree work on.
type world struct {
	t         testing.TB
	root, run string
	driver    string
	store     *store.Store
	fs        *fsview.FS
	ctx       context.Context
}

// dirTrees shows one host directory for a union, which is all that the vfs
// driver needs.
type dirTrees struct{}

func (dirTrees) Union(key string, layers []fsview.TreeLayer) (vnode.Node, error) {
	w, err := hosttree.Open(key, layers[0].Dir, hosttree.Options{Shown: layers[0].Owners})
	if err != nil {
		return nil, err
	}
	return w.Root(), nil
}

func (dirTrees) Window(key, path string, owners *idmap.Maps) (vnode.Node, error) {
	w, err := hosttree.Open(key, path, hosttree.Options{Shown: owners})
	if err != nil {
		return nil, err
	}
	return w.Root(), nil
}

// newWorld makes an empty store of the driver, and a control tree on it.
func newWorld(t *testing.T, driver string, change ...func(*fsview.Options)) *world {
	t.Helper()
	return newWorldIn(t, t.TempDir(), driver, change...)
}

// memoryDir returns a directory in memory, where syncing costs nothing, or an
// ordinary one.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "fsview-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newWorldIn(t testing.TB, dir, driver string, change ...func(*fsview.Options)) *world {
	t.Helper()
	if _, err := exec.LookPath("containers-storage"); err != nil {
		t.Skip("no containers-storage here to make and check stores with")
	}
	if driver == "overlay" && os.Geteuid() != 0 {
		t.Skip("kernel overlay mounts need root here")
	}
	w := &world{t: t, root: filepath.Join(dir, "root"), run: filepath.Join(dir, "run"), driver: driver, ctx: context.Background()}
	make := overlay.New
	if driver == "vfs" {
		make = vfs.New
	}
	t.Cleanup(func() { w.peer("shutdown", "--force") })
	s, err := store.Open(w.ctx, store.Options{GraphRoot: w.root, RunRoot: w.run, DriverName: driver,
		NewDriver: func(c drivers.Config) (drivers.Driver, error) { return make(c) }})
	if err != nil {
		t.Fatalf("opening the store: %v", err)
	}
	w.store = s
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	o := fsview.Options{Store: s, Trees: dirTrees{}, Version: "test"}
	for _, c := range change {
		c(&o)
	}
	w.fs = w.newFS(o)
	return w
}

func (w *world) newFS(o fsview.Options) *fsview.FS {
	w.t.Helper()
	f, err := fsview.New(o)
	if err != nil {
		w.t.Fatalf("making the tree: %v", err)
	}
	w.t.Cleanup(func() {
		if err := f.Close(w.ctx); err != nil {
			w.t.Errorf("closing the tree: %v", err)
		}
	})
	return f
}

// peer runs the peers' program on the same store and returns its output.
func (w *world) peer(args ...string) string {
	w.t.Helper()
	out, err := w.peerErr(args...)
	if err != nil {
		w.t.Fatalf("containers-storage %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (w *world) peerErr(args ...string) (string, error) {
	all := append([]string{"--graph", w.root, "--run", w.run, "--storage-driver", w.driver}, args...)
	cmd := exec.Command("containers-storage", all...)
	conf := filepath.Join(filepath.Dir(w.root), "storage.conf")
	if err := os.WriteFile(conf, []byte("[storage]\ndriver = \""+w.driver+"\"\n"), 0o600); err != nil {
		return "", err
	}
	cmd.Env = append(os.Environ(), "CONTAINERS_STORAGE_CONF="+conf)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (w *world) read(path string) string {
	w.t.Helper()
	s, err := w.readErr(path)
	if err != nil {
		w.t.Fatalf("reading %s: %v", path, err)
	}
	return s
}

func (w *world) readErr(path string) (string, error) {
	var b bytes.Buffer
	_, err := fsview.ReadFile(w.ctx, w.fs.Root(), path, &b)
	return b.String(), err
}

func (w *world) write(path, text string) error {
	return fsview.WriteFile(w.ctx, w.fs.Root(), path, strings.NewReader(text), false)
}

func (w *world) add(path, text string) error {
	return fsview.WriteFile(w.ctx, w.fs.Root(), path, strings.NewReader(text), true)
}

func (w *world) mkdir(path string) {
	w.t.Helper()
	if err := fsview.Mkdir(w.ctx, w.fs.Root(), path); err != nil {
		w.t.Fatalf("mkdir %s: %v", path, err)
	}
}

func (w *world) rmdir(path string) {
	w.t.Helper()
	if err := fsview.Rmdir(w.ctx, w.fs.Root(), path); err != nil {
		w.t.Fatalf("rmdir %s: %v", path, err)
	}
}

func (w *world) mv(from, to string) error { return fsview.Rename(w.ctx, w.fs.Root(), from, to) }

// ls returns the names that a listing shows.
func (w *world) ls(path string) []string {
	w.t.Helper()
	list, err := fsview.List(w.ctx, w.fs.Root(), path)
	if err != nil {
		w.t.Fatalf("ls %s: %v", path, err)
	}
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name
	}
	return names
}

func (w *world) link(path string) string {
	w.t.Helper()
	n, err := fsview.Walk(w.ctx, w.fs.Root(), path, false)
	if err != nil {
		w.t.Fatalf("%s: %v", path, err)
	}
	l, ok := n.(vnode.Symlink)
	if !ok {
		w.t.Fatalf("%s is a %T, no symlink", path, n)
	}
	target, err := l.Readlink(w.ctx)
	if err != nil {
		w.t.Fatalf("readlink %s: %v", path, err)
	}
	return target
}

// is fails the test unless err has the errno's name.
func (w *world) is(err error, want string, doing string) {
	w.t.Helper()
	got := "OK"
	if no := errno.Of(err); no != 0 {
		got = strings.ReplaceAll(unix.ErrnoName(no), "EFSCORRUPTED", "EUCLEAN")
	}
	if got != want {
		w.t.Errorf("%s: %s (%v), want %s", doing, got, err, want)
	}
}
