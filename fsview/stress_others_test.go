package fsview_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/vfs"
	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// another opens the store again, and makes a world of it.
func (w *world) another() *world {
	w.t.Helper()
	s, err := store.Open(w.ctx, store.Options{GraphRoot: w.root, RunRoot: w.run, DriverName: "vfs",
		NewDriver: func(c drivers.Config) (drivers.Driver, error) { return vfs.New(c) }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			w.t.Error(err)
		}
	})
	v := *w
	v.store = s
	v.fs = v.newFS(fsview.Options{Store: s, Trees: dirTrees{}})
	return &v
}

// shown is what a tree shows of all objects.
func (w *world) shown() string {
	w.t.Helper()
	var b strings.Builder
	for _, kind := range []string{"layers", "images", "containers"} {
		for _, id := range w.ls(kind + "/by-id") {
			o := kind + "/by-id/" + id
			fmt.Fprintf(&b, "%s %s %q %q %v\n", kind, id, w.read(o+"/names"), w.read(o+"/metadata"), w.ls(o+"/bigdata"))
		}
	}
	return b.String()
}

// TestBesideOthers changes one store at random through two handles at once,
// and by the peers' program: every error is one that a user could be shown,
// and at the end both handles show what a third, opened then, shows.
func TestBesideOthers(t *testing.T) {
	t.Parallel()
	w := newWorldIn(t, memoryDir(t), "vfs")
	w.mkdir("layers/base")
	w.mkdir("layers/base/images/app")
	expected := map[syscall.Errno]bool{0: true, syscall.ENOENT: true, syscall.EEXIST: true, syscall.EBUSY: true, syscall.ENOTEMPTY: true,
		syscall.ENOTDIR: true, syscall.EINVAL: true}
	tar := string(tarOf(t, "a=b"))
	ops := []func(v *world, c string) error{
		func(v *world, c string) error { return fsview.Mkdir(v.ctx, v.fs.Root(), "images/app/containers/"+c) },
		func(v *world, c string) error { return fsview.Rmdir(v.ctx, v.fs.Root(), "containers/"+c) },
		func(v *world, c string) error { return v.mv("containers/"+c, "containers/moved"+c) },
		func(v *world, c string) error { return v.write("containers/"+c+"/metadata", c) },
		func(v *world, c string) error { return v.write("containers/"+c+"/bigdata/k", c) },
		func(v *world, c string) error { return v.add("containers/"+c+"/names", "n"+c+"\n") },
		func(v *world, c string) error { return fsview.Mkdir(v.ctx, v.fs.Root(), "drafts/"+c) },
		func(v *world, c string) error { return v.write("drafts/"+c+"/diff.tar", tar) },
		func(v *world, c string) error { return v.mv("drafts/"+c, "layers/"+c) },
		func(v *world, c string) error { return fsview.Rmdir(v.ctx, v.fs.Root(), "layers/"+c) },
		func(v *world, _ string) error { _, err := fsview.List(v.ctx, v.fs.Root(), "containers"); return err },
	}
	worlds := []*world{w, w.another()}
	var wg sync.WaitGroup
	for g, v := range worlds {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 2))
			for range 150 {
				i, c := r.IntN(len(ops)), fmt.Sprintf("c%d", r.IntN(4))
				if err := ops[i](v, c); !expected[errno.Of(err)] {
					t.Errorf("handle %d, operation %d on %s: %v", g, i, c, err)
				}
			}
		})
	}
	for i := range 8 {
		if out, err := w.peerErr("create-container", "-n", fmt.Sprintf("theirs%d", i), "app"); err != nil {
			t.Errorf("the peers' program: %v\n%s", err, out)
		}
	}
	wg.Wait()
	want := w.another().shown()
	for _, v := range worlds {
		v.same(v.shown(), want, "what a handle shows at the end")
		v.rmdirDrafts()
	}
	w.nothingStaged()
	w.same(strings.Count(w.peer("containers"), "name: theirs"), 8, "the peers' containers")
	w.same(w.write("ctl", "check full\n"), nil, "a check at the end")
}
