package fsview_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

// TestTogether has many goroutines make, change, list and remove objects of a
// few names through one tree: every error is one that a user could be shown,
// and what is left fits together.
func TestTogether(t *testing.T) {
	t.Parallel()
	w := newWorldIn(t, memoryDir(t), "vfs")
	root := w.fs.Root()
	w.mkdir("layers/base")
	w.mkdir("layers/base/images/app")
	expected := map[syscall.Errno]bool{0: true, syscall.ENOENT: true, syscall.EEXIST: true, syscall.EBUSY: true, syscall.ENOTEMPTY: true,
		syscall.ENOTDIR: true, syscall.EROFS: true, syscall.EINVAL: true}
	ops := []func(r *rand.Rand, c string) error{
		func(_ *rand.Rand, c string) error { return fsview.Mkdir(w.ctx, root, "containers/"+c) },
		func(_ *rand.Rand, c string) error { return fsview.Mkdir(w.ctx, root, "images/app/containers/"+c) },
		func(_ *rand.Rand, c string) error { return fsview.Rmdir(w.ctx, root, "containers/"+c) },
		func(r *rand.Rand, c string) error {
			return w.mv("containers/"+c, fmt.Sprintf("containers/c%d", r.IntN(6)))
		},
		func(_ *rand.Rand, c string) error { return w.add("containers/"+c+"/names", "n"+c+"\n") },
		func(_ *rand.Rand, c string) error {
			return w.write("containers/"+c+"/metadata", strings.Repeat(c, 100))
		},
		func(_ *rand.Rand, c string) error { return w.write("containers/"+c+"/bigdata/k", c) },
		func(_ *rand.Rand, c string) error { return w.write("containers/"+c+"/ctl", "mount\n") },
		func(_ *rand.Rand, c string) error { return w.write("containers/"+c+"/ctl", "umount\n") },
		func(_ *rand.Rand, c string) error { return w.write("containers/"+c+"/merged/f", c) },
		func(_ *rand.Rand, c string) error { _, err := fsview.List(w.ctx, root, "containers/"+c); return err },
		func(_ *rand.Rand, c string) error {
			_, err := fsview.List(w.ctx, root, "containers/"+c+"/tree")
			return err
		},
		func(_ *rand.Rand, _ string) error { _, err := fsview.List(w.ctx, root, "containers"); return err },
		func(_ *rand.Rand, _ string) error { _, err := w.readErr("status"); return err },
		func(_ *rand.Rand, _ string) error { _, err := w.readErr("events"); return err },
		func(_ *rand.Rand, _ string) error { _, err := w.readErr("error_log"); return err },
		func(_ *rand.Rand, c string) error { return fsview.Mkdir(w.ctx, root, "drafts/"+c) },
		func(_ *rand.Rand, c string) error { return w.write("drafts/"+c+"/diff.tar", string(tarOf(t, "a=b"))) },
		func(_ *rand.Rand, c string) error { return w.mv("drafts/"+c, "layers/"+c) },
		func(_ *rand.Rand, c string) error { return fsview.Rmdir(w.ctx, root, "drafts/"+c) },
		func(_ *rand.Rand, c string) error { return fsview.Rmdir(w.ctx, root, "layers/"+c) },
	}
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for range 120 {
				i, c := r.IntN(len(ops)), fmt.Sprintf("c%d", r.IntN(6))
				if err := ops[i](r, c); !expected[errno.Of(err)] {
					t.Errorf("operation %d on %s: %v", i, c, err)
				}
			}
		}()
	}
	wg.Wait()
	for _, c := range w.ls("containers/by-id") {
		if err := w.write("containers/by-id/"+c+"/ctl", "umount force\n"); err != nil {
			t.Error(err)
		}
	}
	walkAll(w, "/", func(string, vnode.Node, vnode.Attr) {})
	for _, d := range w.ls("drafts") {
		w.rmdir("drafts/" + d)
	}
	w.nothingStaged()
	if got := w.peer("containers"); strings.Count(got, "name: c") > 6 {
		t.Errorf("the peers see\n%s", got)
	}
}
