package store_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// TestStageSharedDiff: a layer that others stand on is filled, unless it or
// one above it is mounted.
func TestStageSharedDiff(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		base := get(t, s.CreateLayer, ctx, store.LayerSpec{})
		mid := get(t, s.CreateLayer, ctx, store.LayerSpec{Parent: base.ID})
		top := get(t, s.CreateLayer, ctx, store.LayerSpec{Parent: mid.ID})
		img := get(t, s.CreateMinimalImage, ctx, store.ImageSpec{Layer: mid.ID})
		if _, err := s.StageDiff(ctx, base.ID); !errors.Is(err, errno.ErrInUse) {
			t.Errorf("StageDiff of a parent: %v", err)
		}
		if _, err := s.Mount(ctx, top.ID, drivers.MountOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.StageSharedDiff(ctx, base.ID); !errors.Is(err, errno.ErrInUse) {
			t.Errorf("below a mounted layer: %v", err)
		}
		if _, err := s.Unmount(ctx, top.ID, false); err != nil {
			t.Fatal(err)
		}
		st, err := s.StageSharedDiff(ctx, base.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Import(ctx, bytes.NewReader(makeTar(t, entry{name: "file", text: "late\n"}))); err != nil {
			t.Fatal(err)
		}
		// A mount that comes meanwhile makes Commit refuse.
		if _, err := s.Mount(ctx, img.ID, drivers.MountOptions{ReadOnly: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := st.Commit(ctx); !errors.Is(err, errno.ErrInUse) {
			t.Errorf("Commit below a mount: %v", err)
		}
		if _, err := s.Unmount(ctx, img.ID, false); err != nil {
			t.Fatal(err)
		}
		st, err = s.StageSharedDiff(ctx, base.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Import(ctx, bytes.NewReader(makeTar(t, entry{name: "file", text: "late\n"}))); err != nil {
			t.Fatal(err)
		}
		if _, err := st.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		dirs, err := s.Dirs(base.ID)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(dirs[0], "file")); err != nil || string(b) != "late\n" {
			t.Errorf("the layer holds %q, %v", b, err)
		}
	})
}
