package fsview_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/vnode"
)

// TestDamagedLayer: a layer whose directory is gone is shown and said to be
// damaged; all else works.
func TestDamagedLayer(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"vfs", "overlay"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, driver)
			w.mkdir("layers/bad")
			w.mkdir("layers/good")
			w.mkdir("layers/bad/images/app")
			dir := filepath.Join(w.root, driver, strings.TrimSpace(w.read("layers/bad/id")))
			if driver == "vfs" {
				dir = filepath.Join(w.root, driver, "dir", strings.TrimSpace(w.read("layers/bad/id")))
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			w.fs = w.newFS(fsview.Options{Store: w.store, Trees: dirTrees{}})
			for _, p := range []string{"/", "layers", "layers/bad", "images", "images/app", "layers/by-id", "layers/bad/used-by"} {
				if len(w.ls(p)) == 0 {
					t.Errorf("%s lists nothing", p)
				}
			}
			for _, p := range []string{"layers/bad/tree", "layers/bad/diff", "images/app/tree"} {
				_, err := fsview.List(w.ctx, w.fs.Root(), p)
				w.is(err, "EUCLEAN", "ls "+p)
			}
			w.same(w.read("layers/bad/state"), "damaged\n", "state")
			w.same(strings.Contains(w.read("layers/bad/error"), "missing"), true, "error")
			w.same(strings.Contains(w.read("status"), "damaged layer "), true, "status")
			w.same(w.ls("layers/good/tree"), []string{}, "another layer")
			w.same(w.read("layers/bad/names"), "bad\n", "its names")
		})
	}
}

// TestDamagedJSON: a truncated file makes its kind read-only, in words, and
// harms no other.
func TestDamagedJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/l")
	w.mkdir("containers/c")
	path := filepath.Join(w.root, "vfs-containers", "containers.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw[:len(raw)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	w.is(fsview.Mkdir(w.ctx, w.fs.Root(), "containers/new"), "EUCLEAN", "mkdir")
	w.is(fsview.Mkdir(w.ctx, w.fs.Root(), "layers/new"), "OK", "mkdir of another kind")
	if got := w.read("status"); !strings.Contains(got, "damaged container") {
		t.Errorf("status says\n%s", got)
	}
	walkAll(w, "/", func(string, vnode.Node, vnode.Attr) {})
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	w.is(fsview.Mkdir(w.ctx, w.fs.Root(), "containers/new"), "OK", "mkdir after the repair")
}
