package store_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/store"
)

// wantErr fails unless err is of the kind and is a sentence that names what.
func wantErr(t testing.TB, err error, kind error, what string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), what) {
		t.Errorf("error %v, want one of %v that names %q", err, kind, what)
	}
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// peerRecord is the record of a layer as it is on disk, without what differs
// from object to object.
func (e *lifeEnv) record(t testing.TB, file, id string) map[string]any {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(e.root, e.driver+"-"+file, file+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var list []map[string]any
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		if r["id"] == id {
			delete(r, "id")
			delete(r, "created")
			delete(r, "names")
			return r
		}
	}
	t.Fatalf("no record %s in %s", id, b)
	return nil
}

// TestImportAsPeersDo imports streams by our StageLayer, our StageDiff into an
// empty layer, and the peers' applydiff: records and exported bytes agree.
func TestImportAsPeersDo(t *testing.T) {
	t.Parallel()
	plain := makeTar(t, entry{name: "./"}, entry{name: "./etc/"}, entry{name: "./etc/hello", text: "hello"}, entry{name: "./sh", link: "etc/hello"})
	for name, stream := range map[string][]byte{"plain": plain, "gzip": gzipped(t, plain), "empty": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onDrivers(t, func(t *testing.T, e *lifeEnv) {
				s := e.open()
				ctx := context.Background()
				importLayer(t, s, store.LayerSpec{ID: "ours"}, stream)
				get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "diffed"})
				applyDiff(t, s, "diffed", stream)
				file := filepath.Join(t.TempDir(), "tar")
				if err := os.WriteFile(file, stream, 0o600); err != nil {
					t.Fatal(err)
				}
				e.peer("create-layer", "--id", "theirs")
				e.peer("applydiff", "-f", file, "theirs")
				want := e.record(t, "layers", "theirs")
				for _, id := range []string{"ours", "diffed"} {
					if diff := cmp.Diff(want, e.record(t, "layers", id)); diff != "" {
						t.Errorf("%s: %s", id, diff)
					}
				}
				plain := plain
				if stream == nil {
					plain = nil
				}
				for _, id := range []string{"ours", "diffed", "theirs"} {
					if got := e.peer("diff", "-u", id); got != string(plain) {
						t.Errorf("the peer exports %d other bytes for %s", len(got), id)
					}
					src := get(t, s.DiffTar, ctx, id)
					var out bytes.Buffer
					if _, err := src.WriteTo(&out); err != nil || !bytes.Equal(out.Bytes(), plain) {
						t.Errorf("we export %d other bytes for %s: %v", out.Len(), id, err)
					}
					if n, ok := src.Size(); !ok || n != int64(len(plain)) {
						t.Errorf("size %d %v, want %d", n, ok, len(plain))
					}
					if err := src.Close(); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

// TestDiffIntoContent: digests of one stream do not describe two.
func TestDiffIntoContent(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		s := e.open()
		importLayer(t, s, store.LayerSpec{ID: "base"}, makeTar(t, entry{name: "low", text: "low"}))
		before := importLayer(t, s, store.LayerSpec{ID: "lay", Parent: "base"}, makeTar(t, entry{name: "a", text: "a"}))
		if got := applyDiff(t, s, "lay", nil); got.DiffDigest != before.DiffDigest {
			t.Errorf("an empty stream changed the digest to %s", got.DiffDigest)
		}
		got := applyDiff(t, s, "lay", makeTar(t, entry{name: "b", text: "b"}, entry{name: ".wh.low"}))
		if got.DiffDigest != "" || got.CompressedSize != 0 || len(got.UIDs) != 0 {
			t.Errorf("the record still describes content: %+v", got)
		}
		if _, err := os.Stat(filepath.Join(s.KindDir(store.KindLayer), "lay.tar-split.gz")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("tar-split record: %v", err)
		}
		names := tarNames(t, e.peer("diff", "-u", "lay"))
		if want := []string{".wh.low", "a", "b"}; !slices.Equal(names, want) {
			t.Errorf("the layer holds %q, want %q", names, want)
		}
	})
}

// TestStageLeavesNothing: a stream that breaks, a discarded stage and one that
// lost its parent or its name leave the store as it was.
func TestStageLeavesNothing(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		good := makeTar(t, entry{name: "a", text: strings.Repeat("x", 5000)})
		importLayer(t, s, store.LayerSpec{ID: "base", Names: []string{"n"}}, good)
		before := e.snapshot(t)
		for _, bad := range [][]byte{good[:700], []byte("junk"), gzipped(t, good)[:40]} {
			for _, stage := range []func() (*store.StagedLayer, error){
				func() (*store.StagedLayer, error) { return s.StageLayer(ctx, store.LayerSpec{Parent: "base"}) },
				func() (*store.StagedLayer, error) { return s.StageDiff(ctx, "base") },
			} {
				st, err := stage()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := st.Import(ctx, bytes.NewReader(bad)); err == nil {
					t.Errorf("%d bytes of junk were imported", len(bad))
				}
				if _, err := st.Commit(ctx); err == nil {
					t.Error("a broken stream was committed")
				}
			}
		}
		st := get(t, s.StageLayer, ctx, store.LayerSpec{Parent: "base"})
		if _, err := st.Import(ctx, bytes.NewReader(good)); err != nil {
			t.Error(err)
		}
		if err := st.Discard(ctx); err != nil {
			t.Error(err)
		}
		st = get(t, s.StageLayer, ctx, store.LayerSpec{})
		p := get(t, func(ctx context.Context, st *store.StagedLayer) (io.Writer, error) { return st.Push(ctx) }, ctx, st)
		if _, err := p.Write(good[:600]); err != nil {
			t.Error(err)
		}
		if err := st.Discard(ctx); err != nil {
			t.Error(err)
		}
		_, err := s.CreateLayer(ctx, store.LayerSpec{Parent: "none"})
		wantErr(t, err, errno.ErrUnknown, "none")
		_, err = s.CreateLayer(ctx, store.LayerSpec{Names: []string{"n"}})
		wantErr(t, err, errno.ErrDuplicate, "n")
		_, err = s.CreateLayer(ctx, store.LayerSpec{ID: "base"})
		wantErr(t, err, errno.ErrDuplicate, "base")
		_, err = s.CreateLayer(ctx, store.LayerSpec{ID: "../x"})
		wantErr(t, err, errno.ErrBadValue, "../x")
		if diff := cmp.Diff(before, e.snapshot(t)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestPush: a stream that is written piece by piece makes the same layer.
func TestPush(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		stream := makeTar(t, entry{name: "a", text: strings.Repeat("x", 5000)}, entry{name: "d/"}, entry{name: "d/b", text: "b"})
		want := importLayer(t, s, store.LayerSpec{}, stream)
		st := get(t, s.StageLayer, ctx, store.LayerSpec{ID: "pushed"})
		p, err := st.Push(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(stream); i += 700 {
			if _, err := p.Write(stream[i:min(i+700, len(stream))]); err != nil {
				t.Fatal(err)
			}
		}
		if end, err := p.Boundary(); !end || err != nil {
			t.Errorf("at the end of the archive: %v, %v", end, err)
		}
		if _, err := st.Push(ctx); !errors.Is(err, errno.ErrInUse) {
			t.Errorf("a second stream: %v", err)
		}
		got, err := st.Commit(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got.DiffDigest != want.DiffDigest || got.DiffSize != want.DiffSize || e.peer("diff", "-u", "pushed") != string(stream) {
			t.Errorf("pushed %+v, imported %+v", got, want)
		}
		if _, err := st.Commit(ctx); !errors.Is(err, errno.ErrBadValue) {
			t.Errorf("a second commit: %v", err)
		}
	})
}

// TestIDMaps: where the driver does not map at the mount, a base layer's root
// belongs to the mapped root, and owners of a stream are mapped.
func TestIDMaps(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		e.noShift = true
		s := e.open()
		maps := idmap.Maps{UIDs: []idmap.Range{{HostID: 10000, Size: 1000}}, GIDs: []idmap.Range{{HostID: 20000, Size: 1000}}}
		importLayer(t, s, store.LayerSpec{ID: "ours", Maps: maps}, makeTar(t, entry{name: "f"}))
		dirs, err := s.Dirs("ours")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"", "f"} {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(dirs[0], name), &st); err != nil || st.Uid != 10000 || st.Gid != 20000 {
				t.Errorf("%q belongs to %d:%d, %v", name, st.Uid, st.Gid, err)
			}
		}
		if got := e.peer("diff", "-u", "ours"); !strings.Contains(got, "ustar") || !slices.Equal(tarNames(t, got), []string{"f"}) {
			t.Errorf("the peer exports %d bytes", len(got))
		}
		get(t, s.CreateMinimalImage, ctx, store.ImageSpec{ID: "img", Layer: "ours"})
		c := get(t, s.CreateContainer, ctx, store.ContainerSpec{Image: "img", Maps: maps})
		if l, err := ownLayer(s, c); err != nil || l.Parent != "ours" {
			t.Errorf("the container's layer is %+v %v: its image has these maps already", l, err)
		}
		get(t, s.CreateContainer, ctx, store.ContainerSpec{Maps: maps})
	})
}

func ownLayer(s *store.Store, c *store.Container) (l *store.Layer, err error) {
	err = s.View(context.Background(), func(tx *store.Tx) error {
		l, err = tx.Layer(c.Layer)
		return err
	})
	return l, err
}

// TestStageRaces: what was free when a stage began is looked at again.
func TestStageRaces(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "base"})
		child := get(t, s.StageLayer, ctx, store.LayerSpec{ID: "child", Parent: "base"})
		named := get(t, s.StageLayer, ctx, store.LayerSpec{ID: "named", Names: []string{"n"}})
		twin := get(t, s.StageLayer, ctx, store.LayerSpec{ID: "named2", Names: []string{"n"}})
		diff := get(t, s.StageDiff, ctx, "base")
		if _, err := diff.Import(ctx, bytes.NewReader(makeTar(t, entry{name: "a"}))); err != nil {
			t.Fatal(err)
		}
		if _, err := named.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		_, err := twin.Commit(ctx)
		wantErr(t, err, errno.ErrDuplicate, "n")
		if err := s.DeleteLayer(ctx, "base"); err != nil {
			t.Fatal(err)
		}
		_, err = child.Commit(ctx)
		wantErr(t, err, errno.ErrUnknown, "base")
		_, err = diff.Commit(ctx)
		wantErr(t, err, errno.ErrUnknown, "base")
		if left, err := os.ReadDir(filepath.Join(e.root, "plyfs")); err != nil || len(left) != 0 {
			t.Errorf("left in the extract area: %v, %v", left, err)
		}
	})
}

// TestStageDiffSeesForeignWrites: what others wrote between copy and commit
// must not be lost; their mere mounting does no harm.
func TestStageDiffSeesForeignWrites(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		importLayer(t, s, store.LayerSpec{ID: "lay"}, makeTar(t, entry{name: "a", text: "a"}))
		for _, write := range []bool{false, true} {
			st := get(t, s.StageDiff, ctx, "lay")
			if _, err := st.Import(ctx, bytes.NewReader(makeTar(t, entry{name: "b"}))); err != nil {
				t.Fatal(err)
			}
			dir := strings.TrimSpace(e.peer("mount", "lay"))
			if write {
				if err := os.WriteFile(filepath.Join(dir, "theirs"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			e.peer("unmount", "lay")
			_, err := st.Commit(ctx)
			if write {
				wantErr(t, err, errno.ErrInUse, "lay")
			} else if err != nil {
				t.Error(err)
			}
		}
		st := get(t, s.StageDiff, ctx, "lay")
		e.peer("mount", "lay")
		if _, err := st.Import(ctx, bytes.NewReader(makeTar(t, entry{name: "b"}))); err != nil {
			t.Fatal(err)
		}
		_, err := st.Commit(ctx)
		wantErr(t, err, errno.ErrInUse, "mounted")
		_, err = s.StageDiff(ctx, "lay")
		wantErr(t, err, errno.ErrInUse, "mounted")
		e.peer("unmount", "lay")
	})
}

// TestDeleteRules: nothing that is needed can be deleted, by ID or by name.
func TestDeleteRules(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "base", Names: []string{"bn"}})
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "top", Parent: "base", Names: []string{"tn"}})
		get(t, s.CreateMinimalImage, ctx, store.ImageSpec{ID: "img", Layer: "top", Names: []string{"in"}})
		get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ctr", LayerID: "cl", Image: "img", Names: []string{"cn"}})
		for _, ref := range []string{"base", "bn"} {
			wantErr(t, s.DeleteLayer(ctx, ref), errno.ErrHasChildren, "base")
		}
		for _, ref := range []string{"top", "tn"} {
			wantErr(t, s.DeleteLayer(ctx, ref), errno.ErrHasChildren, "cl")
		}
		wantErr(t, s.DeleteLayer(ctx, "cl"), errno.ErrInUse, "ctr")
		wantErr(t, s.DeleteLayer(ctx, "none"), errno.ErrUnknown, "none")
		_, err := s.DeleteImage(ctx, "in")
		wantErr(t, err, errno.ErrInUse, "ctr")
		_, err = s.CreateLayer(ctx, store.LayerSpec{Parent: "cl"})
		wantErr(t, err, errno.ErrInUse, "ctr")
		_, err = s.CreateImage(ctx, store.ImageSpec{Layer: "cl"})
		wantErr(t, err, errno.ErrInUse, "ctr")
		_, err = s.StageDiff(ctx, "top")
		wantErr(t, err, errno.ErrInUse, "parent")
		if _, err := s.Mount(ctx, "cn", drivers.MountOptions{}); err != nil {
			t.Fatal(err)
		}
		wantErr(t, s.DeleteContainer(ctx, "cn"), errno.ErrInUse, "mounted")
		if n, err := s.Unmount(ctx, "cn", false); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		if err := s.DeleteContainer(ctx, "cn"); err != nil {
			t.Fatal(err)
		}
		wantErr(t, s.DeleteLayer(ctx, "top"), errno.ErrInUse, "img")
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "side", Parent: "base"})
		deleted, err := s.DeleteImage(ctx, "in")
		if err != nil || !slices.Equal(deleted, []string{"top"}) {
			t.Errorf("deleted %v, %v; want top only, since base has another child", deleted, err)
		}
		if got := strings.Fields(e.peer("layers")); !slices.Equal(got, []string{"base", "name:", "bn", "side"}) {
			t.Errorf("layers left: %v", got)
		}
	})
}

// tarNames lists an archive's members, sorted.
func tarNames(t testing.TB, text string) []string {
	t.Helper()
	var names []string
	r := tar.NewReader(strings.NewReader(text))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			slices.Sort(names)
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}
