package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar/layertartest"
	"github.com/plyfs/plyfs/store"
)

const tocKey = "zstd-chunked-manifest"

// wantTOC looks at the layer's table of contents: want is the table, nil for
// none.
func wantTOC(t *testing.T, s *store.Store, id string, d digest.Digest, want []byte) {
	t.Helper()
	ctx := context.Background()
	err := s.View(ctx, func(tx *store.Tx) error {
		l, err := tx.Layer(id)
		if err != nil {
			return err
		}
		if l.TOCDigest != d || slices.Contains(l.BigDataNames, tocKey) != (want != nil) {
			t.Errorf("layer %s has the table %q and the items %q, not %q", id, l.TOCDigest, l.BigDataNames, d)
		}
		if found := tx.LayersByTOCDigest(d); want != nil && !slices.Contains(found, l) {
			t.Errorf("layer %s is not found by the digest of its table", id)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.BigData(ctx, store.KindLayer, id, tocKey)
	if want == nil {
		if !errors.Is(err, errno.ErrUnknown) {
			t.Errorf("the table of layer %s: %v", id, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the table of layer %s is %s, %v", id, got, err)
	}
}

// TestTOCIsKept: the table of contents of a zstd:chunked stream is the layer's
// until its content changes, and a foreign one never.
func TestTOCIsKept(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"overlay", "vfs"} {
		e := newLifeEnv(t, driver)
		needs(t, "containers-storage")
		s := e.open()
		ctx := context.Background()
		plain := makeTar(t, entry{name: "a", text: "1"}, entry{name: "b", text: "2"})
		table := layertartest.Table(t, layertartest.Entries(t, plain))
		chunked, d := layertartest.Chunked(t, plain, table)
		fill := func(st *store.StagedLayer, err error) func(stream []byte, push bool) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			return func(stream []byte, push bool) {
				t.Helper()
				var err error
				if push {
					p := get(t, func(ctx context.Context, _ int) (io.Writer, error) { return st.Push(ctx) }, ctx, 0)
					_, err = p.Write(stream)
				} else {
					_, err = st.Import(ctx, bytes.NewReader(stream))
				}
				if err != nil {
					t.Fatal(err)
				}
				if _, err := st.Commit(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		fill(s.StageLayer(ctx, store.LayerSpec{ID: "one"}))(chunked, false)
		fill(s.StageLayer(ctx, store.LayerSpec{ID: "two"}))(chunked, true)
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "three"})
		fill(s.StageDiff(ctx, "three"))(chunked, false)
		foreign, _ := layertartest.Chunked(t, plain, layertartest.Table(t, nil))
		fill(s.StageLayer(ctx, store.LayerSpec{ID: "foreign"}))(foreign, false)
		for _, id := range []string{"one", "two", "three"} {
			wantTOC(t, s, id, d, table)
		}
		wantTOC(t, s, "foreign", "", nil)
		if got := e.peer("list-layer-data", "one"); got != tocKey+"\n" {
			t.Errorf("containers-storage lists %q", got)
		}
		if got := e.peer("get-layer-data", "one", tocKey); got != string(table) {
			t.Errorf("containers-storage reads %q", got)
		}
		other := makeTar(t, entry{name: "c", text: "3"})
		fill(s.StageDiff(ctx, "one"))(other, false)
		wantTOC(t, s, "one", "", nil)
		if err := s.DeleteLayer(ctx, "two"); err != nil {
			t.Error(err)
		}
		e.peer("delete-layer", "three")
	}
}
