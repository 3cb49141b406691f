package fsview_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/vnode"
)

// du is what the directories take by themselves, in bytes and inodes.
func du(t *testing.T, dirs ...string) [2]int64 {
	t.Helper()
	var sum [2]int64
	for _, dir := range dirs {
		if _, err := os.Stat(dir); os.IsNotExist(err) {
			continue // an object without data has no directory for it
		}
		for i, option := range []string{"--block-size=1", "--inodes"} {
			out, err := exec.Command("du", "-s", "-x", option, dir).Output()
			if err != nil {
				t.Fatalf("du %s: %v", dir, err)
			}
			var n int64
			if _, err := fmt.Sscan(string(out), &n); err != nil {
				t.Fatal(err)
			}
			sum[i] += n
		}
	}
	return sum
}

// usage reads the numbers of a file usage.
func (w *world) usage(path string) map[string]int64 {
	w.t.Helper()
	text := w.read(path + "/usage")
	if got, err := fsview.Walk(w.ctx, w.fs.Root(), path+"/usage", true); err != nil {
		w.t.Fatal(err)
	} else if a, err := got.Attr(w.ctx); err != nil || a.Size != uint64(len(text)) {
		w.t.Errorf("%s/usage has size %d and %d bytes (%v)", path, a.Size, len(text), err)
	}
	m := map[string]int64{}
	for l := range strings.Lines(text) {
		var key string
		var n int64
		if _, err := fmt.Sscan(l, &key, &n); err != nil {
			w.t.Fatalf("%q: %v", l, err)
		}
		m[key] = n
	}
	return m
}

func (w *world) takes(path, what string, want [2]int64) {
	w.t.Helper()
	u := w.usage(path)
	w.same([2]int64{u[what+"-bytes"], u[what+"-inodes"]}, want, path+" "+what)
}

// TestUsage compares with du on the store's own directories.
func TestUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "overlay")
	fill := func(layer string, files ...string) {
		t.Helper()
		if err := w.write("layers/"+layer+"/diff.tar", string(tarOf(t, files...))); err != nil {
			t.Fatal(err)
		}
	}
	big := strings.Repeat("0123456789", 10000)
	w.mkdir("layers/base")
	fill("base", "a="+big, "d/", "d/b=x")
	w.mkdir("layers/base/children/top")
	fill("top", "c="+big+big)
	w.mkdir("layers/top/images/app")
	w.mkdir("layers/base/images/other")
	w.mkdir("images/app/containers/web")
	id := func(path string) string { return strings.TrimSpace(w.read(path + "/id")) }
	own := func(path string) string { return filepath.Join(w.root, "overlay", id(path), "diff") }
	data := func(kind, path string) string { return filepath.Join(w.root, "overlay-"+kind, id(path)) }
	base, top, web := own("layers/base"), own("layers/top"), own("containers/web/layer")

	w.takes("layers/base", "own", du(t, base))
	w.takes("layers/base", "shared", [2]int64{})
	w.takes("layers/base", "reclaimable", [2]int64{})
	w.takes("layers/top", "own", du(t, top))
	w.takes("layers/top", "shared", du(t, base))
	w.takes("images/app", "own", du(t, data("images", "images/app")))
	w.takes("images/app", "shared", du(t, top, base))
	w.takes("containers/web", "own", du(t, web, data("containers", "containers/web")))
	w.takes("containers/web", "shared", du(t, top, base))
	w.takes("containers/web", "reclaimable", du(t, web, data("containers", "containers/web")))

	// What changes is counted again, also while it is mounted.
	if err := w.write("containers/web/merged/new", big); err != nil {
		t.Fatal(err)
	}
	w.takes("containers/web", "own", du(t, web, data("containers", "containers/web")))
	w.takes("containers/web", "reclaimable", [2]int64{})
	if err := w.write("containers/web/merged/more", big); err != nil {
		t.Fatal(err)
	}
	w.takes("containers/web", "own", du(t, web, data("containers", "containers/web")))
	if err := w.write("containers/web/ctl", "umount\n"); err != nil {
		t.Fatal(err)
	}
	w.takes("containers/web", "own", du(t, web, data("containers", "containers/web")))

	// Without the container the image can go, with the layer that is its alone.
	w.rmdir("containers/web")
	w.takes("images/app", "own", du(t, data("images", "images/app"), top))
	w.takes("images/app", "shared", du(t, base))
	want := w.usage("images/app")
	w.same(want["reclaimable-bytes"], want["own-bytes"], "reclaimable")
	w.rmdir("images/app")
	w.rmdir("images/other")
	w.same(w.ls("layers"), []string{"by-digest", "by-id", "by-name"}, "layers")
}

// TestStatfs: the control files show the filesystem of the store.
func TestStatfs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/a")
	var want syscall.Statfs_t
	if err := syscall.Statfs(w.root, &want); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "layers", "layers/a/id", "layers/a/tree"} {
		n, err := fsview.Walk(w.ctx, w.fs.Root(), path, true)
		if err != nil {
			t.Fatal(err)
		}
		got, err := n.(vnode.Statfser).Statfs(w.ctx)
		if err != nil || got.Blocks != want.Blocks || got.Bsize != want.Bsize || got.Files != want.Files || got.Namelen != 255 {
			t.Errorf("%s: %+v (%v), want %+v", path, got, err, want)
		}
	}
}

// TestUserDirs: dir/ and rundir/ are the directories that the peers name, to
// read and write, and are listed when asked for.
func TestUserDirs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("containers/web")
	w.same(slices.Contains(w.ls("containers/web"), "dir"), false, "dir/ is listed")
	for name, verb := range map[string]string{"dir": "get-container-dir", "rundir": "get-container-run-dir"} {
		if err := w.write("containers/web/"+name+"/note", "ours"); err != nil {
			t.Fatal(err)
		}
		path := w.peer(verb, "web")
		w.same(du(t, path)[1], int64(2), "inodes below "+path)
		w.same(w.ls("containers/web/"+name), []string{"note"}, "ls "+name)
		w.is(w.mv("containers/web/"+name+"/note", "containers/web/"+name+"/other"), "OK", "mv within "+name)
		w.is(w.mv("containers/web/"+name+"/other", "containers/web/other"), "EINVAL", "mv out of "+name)
	}
	shown := w.newFS(fsview.Options{Store: w.store, Trees: dirTrees{}, ShowDirs: true})
	list := func(path string) (names []string) {
		t.Helper()
		l, err := fsview.List(w.ctx, shown.Root(), path)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range l {
			names = append(names, e.Name)
		}
		return names
	}
	w.mkdir("containers/new")
	w.same(slices.Contains(list("containers/web"), "dir"), true, "dir/ is listed when asked for")
	w.same(slices.Contains(list("containers/new"), "dir"), false, "dir/ is listed before it is there")
	ro := w.newFS(fsview.Options{Store: w.store, Trees: dirTrees{}, ReadOnly: true})
	_, err := fsview.Walk(w.ctx, ro.Root(), "containers/new/dir", true)
	w.is(err, "EROFS", "dir/ of a read-only tree")
	if _, err := fsview.Walk(w.ctx, ro.Root(), "containers/web/dir/other", true); err != nil {
		t.Error(err)
	}
	w.rmdir("containers/web")
}
