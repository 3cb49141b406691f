package fsview_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/mounts"
	"github.com/plyfs/plyfs/internal/vnode"
)

// count is what the peers think of a mount.
func (w *world) count(path string) string { return strings.Fields(w.read(path + "/mount"))[1] }

func TestMerged(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"vfs", "overlay"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, driver)
			w.mkdir("layers/base")
			if err := w.write("layers/base/diff.tar", string(tarOf(t, "etc/", "etc/f=x"))); err != nil {
				t.Fatal(err)
			}
			w.mkdir("layers/base/images/app")
			w.mkdir("images/app/containers/web")
			w.same(slices.Contains(w.ls("containers/web"), "merged"), false, "merged/ is listed before it is mounted")
			w.same(w.read("containers/web/merged/etc/f"), "x", "naming merged/ mounts")
			w.same(slices.Contains(w.ls("containers/web"), "merged"), true, "merged/ is listed while mounted")
			w.same(w.count("containers/web"), "1", "count")
			w.same(w.read("containers/web/state"), "mounted\n", "state")
			w.is(w.write("containers/web/merged/new", "ours"), "OK", "writing below merged/")
			w.same(w.read("containers/web/merged/new"), "ours", "what was written")
			w.same(w.count("containers/web"), "1", "count after more use")
			w.is(fsview.Rmdir(w.ctx, w.fs.Root(), "containers/web"), "EBUSY", "rmdir while mounted")
			w.same(strings.Contains(w.read("containers/web/error"), "mounted"), true, "error after rmdir while mounted")
			w.same(w.read("containers/web/changes"), w.peer("changes", strings.TrimSpace(w.read("containers/web/layer/id")))+"\n", "changes")
			w.is(w.write("containers/web/ctl", "umount\n"), "OK", "umount")
			w.same(w.count("containers/web"), "0", "count after umount")
			w.same(w.read("containers/web/diff/new"), "ours", "diff/")
			w.is(w.write("containers/web/ctl", "mount\nmount\n"), "OK", "mount twice")
			w.same(w.count("containers/web"), "1", "count after two mounts")
			w.is(w.write("containers/web/ctl", "umount force\n"), "OK", "umount force")
			w.rmdir("containers/web")
			w.same(w.peer("containers"), "", "the peers' containers")
		})
	}
}

func TestMergedRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/base")
	w.mkdir("layers/base/children/top")
	w.mkdir("layers/top/images/app")
	for _, p := range []string{"layers/base", "layers/top"} {
		_, err := fsview.Walk(w.ctx, w.fs.Root(), p+"/merged", true)
		w.is(err, "EROFS", "naming "+p+"/merged")
		w.is(w.write(p+"/ctl", "mount\n"), "EROFS", "mount of "+p)
		w.same(w.count(p), "0", "count of "+p)
	}
	_, err := fsview.Walk(w.ctx, w.fs.Root(), "images/app/merged", true)
	w.is(err, "ENOENT", "an image's merged/")
}

func TestCtlIsAllOrNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("containers/web")
	for _, bad := range []string{"bogus\n", "mount\nbogus\n", "mount force\n", "umount hard\n", "mount\nmount loud\n", "mount\nforget-data %zz\n"} {
		w.is(w.write("containers/web/ctl", bad), "EINVAL", bad)
		w.same(w.count("containers/web"), "0", "count after "+bad)
	}
	w.is(w.write("containers/web/ctl", "# a comment\n\n mount # why\n"), "OK", "comments")
	w.same(w.count("containers/web"), "1", "count")
	f := w.open("containers/web/ctl", trun)
	f.ok(f.flush(), f.write("umount", 0))
	w.same(w.count("containers/web"), "1", "a verb without newline waits")
	f.ok(f.flush(), f.flush(), f.release())
	w.same(w.count("containers/web"), "0", "and is run once at the close")
	w.is(w.write("containers/web/ctl", "umount\n"), "OK", "umount of what is not mounted")
}

// TestSharedCount: the peers' mount and ours count together.
func TestSharedCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "overlay")
	w.mkdir("containers/web")
	id := strings.TrimSpace(w.read("containers/web/id"))
	path := w.peer("mount", id)
	w.same(w.count("containers/web"), "1", "the peers' mount")
	w.same(slices.Contains(w.ls("containers/web"), "merged"), false, "merged/ is listed when only the peers mounted")
	w.is(w.write("containers/web/merged/f", "ours"), "OK", "writing")
	w.same(w.count("containers/web"), "2", "count")
	got, err := os.ReadFile(filepath.Join(path, "f"))
	if err != nil || string(got) != "ours" {
		t.Errorf("the peers read %q, %v", got, err)
	}
	w.is(w.write("containers/web/ctl", "umount\n"), "OK", "umount")
	w.same(w.count("containers/web"), "1", "count after our umount")
	// With none of ours, umount takes one of the shared count, as theirs does.
	w.is(w.write("containers/web/ctl", "umount\n"), "OK", "umount of theirs")
	w.same(w.count("containers/web"), "0", "count")
}

// TestMergedIsLetGo: the end of the control filesystem gives mounts back.
func TestMergedIsLetGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "overlay")
	w.mkdir("containers/web")
	w.mkdir("containers/api")
	f := w.newFS(fsview.Options{Store: w.store, Trees: dirTrees{}})
	w.fs = f
	for _, c := range []string{"web", "api"} {
		if _, err := fsview.Walk(w.ctx, f.Root(), "containers/"+c+"/merged", true); err != nil {
			t.Fatal(err)
		}
	}
	w.same(w.count("containers/web"), "1", "count")
	if err := f.Close(w.ctx); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"web", "api"} {
		w.same(w.count("containers/"+c), "0", "count of "+c+" after Close")
	}
	_, err := fsview.Walk(w.ctx, f.Root(), "containers/web/merged", true)
	w.is(err, "EROFS", "naming merged/ after Close")
}

// TestTrees: tree/ and diff/ are read-only, and say so.
func TestTrees(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "overlay")
	w.mkdir("layers/base")
	if err := w.write("layers/base/diff.tar", string(tarOf(t, "etc/", "etc/f=x"))); err != nil {
		t.Fatal(err)
	}
	root := w.fs.Root()
	w.same(w.read("layers/base/tree/etc/f"), "x", "a file")
	w.is(fsview.Mkdir(w.ctx, root, "layers/base/tree/d"), "EROFS", "mkdir in tree/")
	w.is(w.write("layers/base/tree/new", "x"), "EROFS", "a new file in tree/")
	w.is(w.rm("layers/base/diff/etc"), "EISDIR", "rm of a directory")
	w.is(fsview.Rmdir(w.ctx, root, "layers/base/diff/etc"), "EROFS", "rmdir in diff/")
	w.is(w.ln("x", "layers/base/tree/l"), "EROFS", "ln in tree/")

	// What can change has another identity than what cannot.
	n, err := fsview.Walk(w.ctx, root, "layers/base/tree", true)
	if err != nil {
		t.Fatal(err)
	}
	w.mkdir("layers/base/images/app")
	m, err := fsview.Walk(w.ctx, root, "layers/base/tree", true)
	if err != nil {
		t.Fatal(err)
	}
	if n.Ino() == m.Ino() {
		t.Error("a layer that became fixed kept the inode number of its tree/")
	}
	// A forgotten node is opened again when it is asked again.
	m.(vnode.Forgetter).Forget()
	if _, err := m.Attr(w.ctx); err != nil {
		t.Errorf("after Forget: %v", err)
	}
	m.(vnode.Forgetter).Forget()
}

// A mount that somebody takes away without the count is not mistaken for the
// directory that it was on: that would take files which nobody finds again.
func TestMergedWithoutItsMount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "overlay")
	w.mkdir("containers/web")
	w.same(len(w.ls("containers/web/merged")), 0, "an empty container")
	_, path, _ := strings.Cut(w.read("containers/web/mount"), "path ")
	path = strings.TrimSpace(path)
	if err := unix.Unmount(path, 0); err != nil {
		t.Fatal(err)
	}
	w.is(w.write("containers/web/merged/lost", "x"), "EBUSY", "writing where nothing is mounted")
	w.same(strings.Contains(w.read("containers/web/error"), "umount force"), true, "the advice")
	if left, err := os.ReadDir(path); err != nil || len(left) > 0 {
		t.Errorf("below the mount point: %v, %v", left, err)
	}
	w.is(w.write("containers/web/ctl", "umount force\n"), "OK", "umount force")
	w.same(strings.Contains(w.read("status"), "mounts-held 0\n"), true, "status")
	w.is(w.write("containers/web/merged/kept", "x"), "OK", "mounted again")
	w.same(w.read("containers/web/diff/kept"), "x", "diff/")
	w.same(strings.Contains(w.read("status"), "mounts-held 1\n"), true, "status")
	w.peer("unmount", "--force", strings.TrimSpace(w.read("containers/web/layer/id")))
	w.same(strings.Contains(w.read("status"), "mounts-held 0\n"), true, "status after the peer's unmount")
}

// A mount that somebody ended by force, and that another program made again, is
// the other's: it outlives this tree, whether the state without a mount was
// seen or not.
func TestMergedMadeAgainByOthers(t *testing.T) {
	t.Parallel()
	for _, seen := range []bool{true, false} {
		w := newWorld(t, "overlay")
		w.mkdir("containers/web")
		id := strings.TrimSpace(w.read("containers/web/id"))
		f := w.newFS(fsview.Options{Store: w.store, Trees: dirTrees{}})
		w.fs = f
		w.same(len(w.ls("containers/web/merged")), 0, "an empty container")
		w.peer("unmount", "--force", id)
		if seen {
			w.same(w.count("containers/web"), "0", "count")
		}
		path := w.peer("mount", id)
		w.same(w.count("containers/web"), "1", "count of the peer's mount")
		w.same(slices.Contains(w.ls("containers/web"), "merged"), false, "merged/ is listed, as if it were held")
		w.same(strings.Contains(w.read("status"), "mounts-held 0\n"), true, "status")
		if err := f.Close(w.ctx); err != nil {
			t.Fatal(err)
		}
		w.same(w.count("containers/web"), "1", "count after the end of the tree")
		if on, err := mounts.IsMountPoint(path); err != nil || !on {
			t.Errorf("the peer's mount is gone: %v", err)
		}
		w.peer("unmount", id)
	}
}
