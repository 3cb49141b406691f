package store_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// Every lock of a store is told of by its own name, those of an image store and
// of the choice of ID maps too: who holds one shows there and nowhere else.
func TestEveryLockIsTold(t *testing.T) {
	t.Parallel()
	e := newLifeEnv(t, "vfs")
	images := filepath.Join(filepath.Dir(e.root), "images")
	s := e.openWith(func(o store.Options) store.Options {
		o.ImageStore = images
		return o
	})
	importLayer(t, s, store.LayerSpec{ID: "layer", ReadOnly: true}, makeTar(t, entry{name: "f"}))
	files := map[string]string{
		"layers": e.root + "/vfs-layers/layers.lock", "image-layers": images + "/vfs-layers/layers.lock",
		"images": images + "/vfs-images/images.lock", "containers": e.root + "/vfs-containers/containers.lock",
		"mountpoints": e.run + "/vfs-layers/mountpoints.lock", "userns": e.root + "/userns.lock",
	}
	names := s.LockNames()
	if len(names) != len(files) {
		t.Errorf("locks %v", names)
	}
	for name, path := range files {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}); err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			st, err := s.LockState(n)
			if err != nil || st.Path != files[n] || n == name && (!st.Held || !st.Holder.Write) {
				t.Errorf("%s held: %s is %+v, %v", name, n, st, err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.LockState("nothing")
	want(t, err, errno.ErrUnknown)
	if err := s.View(context.Background(), func(*store.Tx) error { return nil }); err != nil {
		t.Error(err)
	}
	if slices.Contains(e.open().LockNames(), "image-layers") {
		t.Error("a store without an image store has its lock")
	}
}
