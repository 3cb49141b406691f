package fsview_test

import (
	"strings"
	"syscall"

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
		if e.Attr.Mode&syscall.S_IFMT == syscall.S_IFDIR {
			walkAll(w, full, visit)
		}
	}
}
