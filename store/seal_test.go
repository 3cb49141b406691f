package store_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// TestSealTogether: many make an image of one layer that was written by hand,
// through two open stores; its digests are made known once, and the peer
// exports the bytes that they are of.
func TestSealTogether(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		stores := []*store.Store{e.open(), e.open()}
		s := stores[0]
		importLayer(t, s, store.LayerSpec{ID: "base"}, makeTar(t, entry{name: "gone", text: "x"}, entry{name: "kept"}))
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "hand", Parent: "base"})
		path, err := s.Mount(ctx, "hand", drivers.MountOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.CreateMinimalImage(ctx, store.ImageSpec{Layer: "hand"})
		wantErr(t, err, errno.ErrInUse, "mounted")
		if err := os.WriteFile(filepath.Join(path, "new"), []byte("new"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(path, "gone")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Unmount(ctx, "hand", false); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				if _, err := stores[i%2].CreateMinimalImage(ctx, store.ImageSpec{Layer: "hand"}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		first := e.peer("diff", "-u", "hand")
		if second := e.peer("diff", "-u", "hand"); first != second || len(first) == 0 {
			t.Errorf("two exports have %d and %d bytes", len(first), len(second))
		}
		l := get(t, s.Seal, ctx, "hand")
		if tarSum(s, l) != "as imported" || l.DiffSize != int64(len(first)) {
			t.Errorf("%s: size %d, the peer exports %d", tarSum(s, l), l.DiffSize, len(first))
		}
		e.podman("images")
	})
}
