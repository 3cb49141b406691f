package fsview_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/vnode"
)

// walkAll visits everything that is listed below path, without following
// symlinks, and reads every file.
func walkAll(w *world, path string, visit func(path string, n vnode.Node, a vnode.Attr)) {
	w.t.Helper()
	list, err := fsview.List(w.ctx, w.fs.Root(), path)
	if err != nil {
		w.t.Fatalf("ls %s: %v", path, err)
	}
	for _, e := range list {
		full := strings.TrimSuffix(path, "/") + "/" + e.Name
		visit(full, e.Node, e.Attr)
		if _, ok := e.Node.(vnode.Directory); ok {
			walkAll(w, full, visit)
		}
	}
}

func TestDump(t *testing.T) {
	w := newWorld(t, "overlay")
	base := w.peer("create-layer", "-n", "base")
	base = strings.Fields(base)[0]
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	img := strings.Fields(w.peer("create-image", "-n", "docker.io/library/x:1", "-n", "x", base))[0]
	w.peer("create-container", "-n", "web", img)
	walkAll(w, "/", func(path string, n vnode.Node, a vnode.Attr) {
		text := ""
		switch v := n.(type) {
		case vnode.Symlink:
			text, _ = v.Readlink(w.ctx)
		case vnode.Opener:
			text = w.read(path)
		}
		t.Logf("%o %d %d %s %q", a.Mode, a.Nlink, a.Size, path, text)
	})
}
