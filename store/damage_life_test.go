package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// TestForeignDirectories: what stands where a new object would go, without a
// record, is neither taken over nor removed.
func TestForeignDirectories(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "base"})
		dirs, err := s.Dirs("base")
		if err != nil {
			t.Fatal(err)
		}
		home, _, _ := strings.Cut(dirs[0], "/base")
		foreign := []string{filepath.Join(home, "alien", "diff", "f"), filepath.Join(s.KindDir(store.KindImage), "alien", "f"), filepath.Join(s.KindDir(store.KindContainer), "alien", "f")}
		for _, path := range foreign {
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("theirs"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		before := e.snapshot(t)
		_, err = s.CreateLayer(ctx, store.LayerSpec{ID: "alien"})
		wantErr(t, err, errno.ErrDamaged, "alien")
		_, err = s.CreateMinimalImage(ctx, store.ImageSpec{ID: "alien"})
		wantErr(t, err, errno.ErrDamaged, "alien")
		_, err = s.CreateContainer(ctx, store.ContainerSpec{ID: "alien", BigData: []store.BigDataItem{{Key: "k"}}})
		wantErr(t, err, errno.ErrDamaged, "alien")
		if diff := cmp.Diff(before, e.snapshot(t)); diff != "" {
			t.Error(diff)
		}
		for _, path := range foreign {
			if b, err := os.ReadFile(path); err != nil || string(b) != "theirs" {
				t.Errorf("%s: %q, %v", path, b, err)
			}
		}
	})
}

// TestIncompleteChain: incomplete layers go from the top down; one that a
// whole layer was made over is kept.
func TestIncompleteChain(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		for _, spec := range []store.LayerSpec{{ID: "a1"}, {ID: "a2", Parent: "a1"}, {ID: "a3", Parent: "a2"}, {ID: "b1"}, {ID: "b2", Parent: "b1"}} {
			get(t, s.CreateLayer, ctx, spec)
		}
		get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "half"})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		e.markIncomplete(t, "layers", "a1", "a2", "a3", "b1")
		m := e.snapshot(t)
		for _, id := range []string{"a1", "a2", "a3"} {
			if m["layer "+id] != "" || strings.Contains(m["files"], "driver/"+id+" ") {
				t.Errorf("layer %s is still there", id)
			}
		}
		if m["layer b1"] == "" || m["layer b2"] == "" || m["container half"] == "" {
			t.Errorf("too much was swept: %v", m)
		}
	})
}

// markIncomplete puts the flag into records, as a peer that is killed leaves it.
func (e *lifeEnv) markIncomplete(t *testing.T, file string, ids ...string) {
	t.Helper()
	path := filepath.Join(e.root, e.driver+"-"+file, file+".json")
	b, err := os.ReadFile(path)
	for _, id := range ids {
		b = bytes.Replace(b, []byte(`"id":"`+id+`"`), []byte(`"flags":{"incomplete":true},"id":"`+id+`"`), 1)
	}
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestReadOnlyLifecycle: a store opened read-only reads all and changes nothing.
func TestReadOnlyLifecycle(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		prepare(t, e)
		before := treeSum(t, e.root)
		o := e.options()
		o.ReadOnly = true
		s := get(t, store.Open, ctx, o)
		stage := func(st *store.StagedLayer, err error) error {
			if st != nil {
				t.Error("a layer was staged")
			}
			return err
		}
		_, e1 := s.CreateMinimalImage(ctx, store.ImageSpec{})
		_, e2 := s.CreateContainer(ctx, store.ContainerSpec{})
		_, e3 := s.DeleteImage(ctx, "img")
		_, e4 := s.Mount(ctx, "full", drivers.MountOptions{})
		_, e5 := s.Unmount(ctx, "full", true)
		_, e6 := s.Seal(ctx, "empty")
		for i, err := range []error{e1, e2, e3, e4, e5, e6,
			stage(s.StageLayer(ctx, store.LayerSpec{})), stage(s.StageDiff(ctx, "full")),
			s.DeleteLayer(ctx, "full"), s.DeleteContainer(ctx, "ctr"),
			s.SetBigData(ctx, store.KindImage, "img", "k", strings.NewReader("")), s.RemoveBigData(ctx, store.KindContainer, "ctr", "item"),
		} {
			if !errors.Is(err, errno.ErrReadOnly) {
				t.Errorf("operation %d: %v", i, err)
			}
		}
		if got := readData(t, s, store.KindContainer, "ctr", "item"); got != "v" {
			t.Errorf("item %q", got)
		}
		checkRandomReads(t, s, "full")
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if treeSum(t, e.root) != before {
			t.Error("the store has changed")
		}
	})
}

// checkRandomReads compares reads at any offset with the whole stream.
func checkRandomReads(t *testing.T, s *store.Store, id string) {
	t.Helper()
	src := get(t, s.DiffTar, context.Background(), id)
	defer func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}()
	var whole bytes.Buffer
	if _, err := src.WriteTo(&whole); err != nil {
		t.Fatal(err)
	}
	n, known := src.Size()
	if !known || n != int64(whole.Len()) {
		t.Fatalf("size %d %v, the stream has %d bytes", n, known, whole.Len())
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		off := rnd.Int64N(n)
		buf := make([]byte, rnd.IntN(3000))
		got, err := src.ReadAt(buf, off)
		if want := whole.Bytes()[off:min(off+int64(len(buf)), n)]; !bytes.Equal(buf[:got], want) || err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("at %d: %d bytes, %v", off, got, err)
		}
	}
}
