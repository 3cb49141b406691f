package fsview_test

import (
	"context"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

// walkAll visits everything that is listed below path, without following
// symlinks.
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

// onDisk returns what of the store's files says that it changed.
func (w *world) onDisk() map[string]string {
	w.t.Helper()
	m := map[string]string{}
	for _, dir := range []string{w.root, w.run} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			i, err := d.Info()
			if err != nil {
				return err
			}
			text := i.Mode().String()
			if i.Mode().IsRegular() {
				raw, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				text += string(raw)
			}
			m[path] = text
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return m
}

// TestListingIsHarmless: everything that is listed can be read to its end, has
// its true size and type, and nothing on disk changes by it.
func TestListingIsHarmless(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "overlay")
	one(w)
	before := w.onDisk()
	inos := map[uint64]string{}
	walkAll(w, "/", func(path string, n vnode.Node, a vnode.Attr) {
		if a.Ino != n.Ino() {
			t.Errorf("%s: stat shows inode %d, the node is %d", path, a.Ino, n.Ino())
		}
		foreign := strings.Contains(path, "/tree/") || strings.Contains(path, "/diff/")
		if other, ok := inos[a.Ino]; ok && !foreign {
			t.Errorf("%s and %s have one inode number", path, other)
		}
		inos[a.Ino] = path
		switch a.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			if a.Mode&0o444 == 0 {
				return
			}
			if got := len(w.read(path)); uint64(got) != a.Size && path != "/events" {
				t.Errorf("%s has %d bytes and says %d", path, got, a.Size)
			}
		case syscall.S_IFLNK:
			if target := w.link(path); !foreign && uint64(len(target)) != a.Size {
				t.Errorf("%s leads to %q and says %d bytes", path, target, a.Size)
			}
			if !foreign {
				if _, err := fsview.Walk(w.ctx, w.fs.Root(), path, true); err != nil {
					t.Errorf("%s dangles: %v", path, err)
				}
			}
		case syscall.S_IFDIR:
			checkDir(w, path, n, a, foreign)
		}
	})
	after := w.onDisk()
	for path := range maps.Keys(after) {
		if before[path] != after[path] {
			t.Errorf("listing and reading changed %s", path)
		}
	}
	w.same(len(after), len(before), "files on disk")
	w.same(w.read("error_log"), "", "error_log")
}

// checkDir compares a listing with what look-ups say.
func checkDir(w *world, path string, n vnode.Node, a vnode.Attr, foreign bool) {
	w.t.Helper()
	des, err := n.(vnode.Directory).ReadDir(w.ctx)
	if err != nil {
		w.t.Errorf("%s: %v", path, err)
		return
	}
	dirs := uint32(0)
	for _, de := range des {
		c, err := n.(vnode.Directory).Lookup(w.ctx, de.Name)
		if err != nil || c.Node == nil {
			w.t.Errorf("%s lists %q, which is not there: %v", path, de.Name, err)
			continue
		}
		ca, err := c.Node.Attr(w.ctx)
		if err != nil || ca.Mode&syscall.S_IFMT != de.Type || !foreign && ca.Ino != de.Ino {
			w.t.Errorf("%s lists %q as %o %d; it is %o %d (%v)", path, de.Name, de.Type, de.Ino, ca.Mode, ca.Ino, err)
		}
		if de.Type == syscall.S_IFDIR {
			dirs++
		}
	}
	if !foreign && !strings.HasSuffix(path, "/tree") && !strings.HasSuffix(path, "/diff") && a.Nlink != 2+dirs {
		w.t.Errorf("%s has %d links and %d directories", path, a.Nlink, dirs)
	}
}

// TestSameInodes: inode numbers are the same at every mount.
func TestSameInodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	one(w)
	inos := func() map[string]uint64 {
		m := map[string]uint64{}
		walkAll(w, "/", func(path string, _ vnode.Node, a vnode.Attr) {
			if !strings.HasPrefix(path, "/drafts") {
				m[path] = a.Ino
			}
		})
		return m
	}
	first := inos()
	w.fs = w.newFS(fsview.Options{Store: w.store, Trees: dirTrees{}, Version: "test"})
	w.same(inos(), first, "inode numbers of a second mount")
}

func TestHideAndShow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	one(w)
	w.same(slices.Contains(w.ls("layers/top"), "tree"), true, "tree/ is listed")
	w.same(slices.Contains(w.ls("layers/base"), "changes"), false, "changes is listed")
	w.fs = w.newFS(fsview.Options{Store: w.store, Trees: dirTrees{}, HideTrees: true})
	for _, name := range []string{"tree", "diff", "diff.tar"} {
		w.same(slices.Contains(w.ls("layers/top"), name), false, name+" is listed")
		if _, err := fsview.Walk(w.ctx, w.fs.Root(), "layers/top/"+name, true); err != nil {
			t.Errorf("a hidden %s is not there: %v", name, err)
		}
	}
	w.fs = w.newFS(fsview.Options{Store: w.store, Trees: dirTrees{}, ShowStreams: true})
	for _, name := range []string{"changes", "diff.tar"} {
		w.same(slices.Contains(w.ls("layers/base"), name), true, name+" is listed")
	}
}

// TestEvents: what other programs do shows up, in their order.
func TestEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	id := strings.Fields(w.peer("create-layer", "-n", "theirs"))[0]
	w.same(w.read("layers/theirs/id"), id+"\n", "a layer of the peers")
	w.mkdir("layers/ours")
	w.peer("delete-layer", "theirs")
	_, err := w.readErr("layers/theirs/id")
	w.is(err, "ENOENT", "a layer that the peers removed")
	if err := w.store.Settle(w.ctx); err != nil {
		t.Fatal(err)
	}
	var ops []string
	for _, l := range strings.Split(strings.TrimSpace(w.read("events")), "\n") {
		var e struct {
			Generation uint64
			Time       time.Time
			Kind       string
			Op         store.Op
			ID         string
			Names      []string
		}
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		if e.Kind != "layer" || e.Generation == 0 || e.Time.IsZero() {
			t.Errorf("odd event %s", l)
		}
		ops = append(ops, string(e.Op)+" "+strings.Join(e.Names, ","))
	}
	w.same(ops, []string{"create theirs", "create ours", "delete theirs"}, "events")
}

// TestOwnersAndTimes: files belong to whoever mounted, and times follow the
// store.
func TestOwnersAndTimes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs", func(o *fsview.Options) { o.UID, o.GID = 4242, 4343 })
	w.mkdir("containers/web")
	attr := func(path string) vnode.Attr {
		t.Helper()
		n, err := fsview.Walk(w.ctx, w.fs.Root(), path, false)
		if err != nil {
			t.Fatal(err)
		}
		a, err := n.Attr(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	created := strings.TrimSpace(w.read("containers/web/created"))
	before := attr("containers/web/names")
	w.same(before.UID, uint32(4242), "owner")
	w.same(before.GID, uint32(4343), "group")
	w.same(attr("containers/web/id").Mtime.UTC().Format(time.RFC3339Nano), created, "mtime of id")
	if err := w.write("containers/web/names", "api\n"); err != nil {
		t.Fatal(err)
	}
	if after := attr("containers/api/names"); !after.Mtime.After(before.Mtime) {
		t.Errorf("mtime of names did not move: %v, %v", before.Mtime, after.Mtime)
	}
	w.same(attr("containers/api/created").Mtime.UTC().Format(time.RFC3339Nano), created, "mtime of created")
}

// TestFollow: events.follow yields what events has, then waits for more, and a
// reader that is interrupted loses nothing.
func TestFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/a")
	if err := w.store.Settle(w.ctx); err != nil {
		t.Fatal(err)
	}
	f, g := w.open("events.follow", os.O_RDONLY), w.open("events.follow", os.O_RDONLY)
	buf := make([]byte, 64<<10)
	next := func(f *file) string {
		t.Helper()
		n, err := f.h.ReadAt(w.ctx, buf, 0)
		f.ok(err)
		return string(buf[:n])
	}
	for _, x := range []*file{f, g} {
		w.same(next(x), w.read("events"), "what was there")
	}
	ctx, cancel := context.WithCancel(w.ctx)
	stopped := make(chan error)
	go func() {
		_, err := f.h.ReadAt(ctx, make([]byte, 10), 0)
		stopped <- err
	}()
	cancel()
	w.is(<-stopped, "EINTR", "an interrupted read")
	w.peer("create-layer", "-n", "theirs")
	for _, x := range []*file{f, g} {
		if got := next(x); !strings.Contains(got, `"create"`) || !strings.Contains(got, "theirs") {
			t.Errorf("the next event is %q", got)
		}
	}
	f.ok(f.release(), g.release())
}
