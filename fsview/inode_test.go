package fsview_test

import (
	"testing"

	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/vnode"
)

// TestInodesOfWindows: a listing gives merged/, dir/ and rundir/ the inode
// numbers that they have.
func TestInodesOfWindows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs", func(o *fsview.Options) { o.ShowDirs = true })
	w.mkdir("containers/c")
	seen := 0
	for _, dir := range []string{"merged", "dir", "rundir"} {
		if _, err := fsview.Walk(w.ctx, w.fs.Root(), "containers/c/"+dir, true); err != nil {
			t.Fatal(err)
		}
	}
	c, err := fsview.Walk(w.ctx, w.fs.Root(), "containers/c", true)
	if err != nil {
		t.Fatal(err)
	}
	d, ok := c.(vnode.Directory)
	if !ok {
		t.Fatalf("a container is a %T", c)
	}
	list, err := d.ReadDir(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		n, err := fsview.Walk(w.ctx, w.fs.Root(), "containers/c/"+e.Name, false)
		if err != nil {
			t.Fatal(err)
		}
		if n.Ino() != e.Ino {
			t.Errorf("%s: listed with %d, has %d", e.Name, e.Ino, n.Ino())
		}
		if e.Name == "merged" || e.Name == "dir" || e.Name == "rundir" {
			seen++
		}
	}
	w.same(seen, 3, "windows listed")
	w.is(w.write("containers/c/ctl", "umount\n"), "OK", "umount")
}
