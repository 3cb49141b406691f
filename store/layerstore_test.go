package store_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/store"
)

// layerStore is an additional layer store made by hand, as the public
// descriptions of the form do it: one layer, by its digest.
type layerStore struct {
	root, dir    string
	tar, blob    []byte
	layer, toc   digest.Digest
	uncompressed digest.Digest
}

const storeReference = "registry.example/some/image:1"

// makeLayerStore unpacks the layer's tar with tar(1). by is what the layer's
// folder is called after.
func makeLayerStore(t *testing.T, ref bool, by func(*layerStore) string, info string) *layerStore {
	t.Helper()
	s := &layerStore{root: t.TempDir(), toc: digest.FromString("table of contents")}
	s.tar = makeTar(t, entry{name: "d/"}, entry{name: "d/new", text: "of the layer"}, entry{name: ".wh.gone"}, entry{name: "d/.wh..wh..opq"}, entry{name: "owned", uid: 7, text: "x"})
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(s.tar); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	s.blob, s.layer, s.uncompressed = b.Bytes(), digest.FromBytes(b.Bytes()), digest.FromBytes(s.tar)
	folder := s.root
	if ref {
		folder = filepath.Join(folder, base64.StdEncoding.EncodeToString([]byte(storeReference)))
	}
	s.dir = filepath.Join(folder, by(s))
	if err := os.MkdirAll(filepath.Join(s.dir, "diff"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("tar", "-xp", "--numeric-owner", "-C", filepath.Join(s.dir, "diff"))
	c.Stdin = bytes.NewReader(s.tar)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	if info == "" {
		info = fmt.Sprintf(`{"compressed-diff-digest":%q,"compressed-size":%d,"diff-digest":%q,"diff-size":%d,"toc-digest":%q,"compression":2,"unknown":[]}`,
			s.layer, len(s.blob), s.uncompressed, len(s.tar), s.toc)
	}
	s.write(t, "info", []byte(info))
	return s
}

func (s *layerStore) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A layer is found by the digest of its stream or of its table of contents,
// and becomes one of ours: content, marks and owners, digests; from the blob,
// where there is one, byte for byte.
func TestAdditionalLayer(t *testing.T) {
	t.Parallel()
	byLayer := func(s *layerStore) string { return s.layer.String() }
	for name, by := range map[string]func(*layerStore) string{
		"digest": byLayer, "hex": func(s *layerStore) string { return s.layer.Encoded() },
		"toc": func(s *layerStore) string { return s.toc.String() },
	} {
		for _, ref := range []bool{false, true} {
			for _, blob := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/ref=%v/blob=%v", name, ref, blob), func(t *testing.T) {
					t.Parallel()
					onDrivers(t, func(t *testing.T, e *lifeEnv) {
						als := makeLayerStore(t, ref, by, "")
						if blob {
							als.write(t, "blob", als.blob)
						}
						want := als.layer
						if name == "toc" {
							want = als.toc
						}
						takeAdditional(t, e, als, store.LayerStore{Path: als.root, ByReference: ref}, want, blob)
					})
				})
			}
		}
	}
}

func takeAdditional(t *testing.T, e *lifeEnv, als *layerStore, at store.LayerStore, d digest.Digest, blob bool) {
	t.Helper()
	ctx := context.Background()
	s := e.openWith(func(o store.Options) store.Options {
		o.LayerStores = []store.LayerStore{{Path: filepath.Join(als.root, "missing")}, at}
		return o
	})
	importLayer(t, s, store.LayerSpec{ID: "base"}, makeTar(t, entry{name: "gone", text: "x"}, entry{name: "d/"}, entry{name: "d/old", text: "x"}))
	l, err := s.LookupAdditionalLayer(ctx, d, storeReference)
	if err != nil {
		t.Fatal(err)
	}
	if c, u, toc := l.Digests(); c != als.layer || u != als.uncompressed || toc != als.toc {
		t.Errorf("digests %s %s %s", c, u, toc)
	}
	if c, u := l.Sizes(); c != int64(len(als.blob)) || u != int64(len(als.tar)) {
		t.Errorf("sizes %d %d", c, u)
	}
	if _, err := os.Stat(filepath.Join(als.dir, "use")); err != nil {
		t.Errorf("nobody uses it: %v", err)
	}
	rec, err := l.Put(ctx, store.LayerSpec{ID: "top", Parent: "base", Names: []string{"n"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(als.dir, "use")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is used still: %v", err)
	}
	if rec.CompressedDigest != als.layer || rec.DiffDigest != als.uncompressed || rec.TOCDigest != als.toc || rec.CompressedSize != int64(len(als.blob)) || rec.DiffSize != int64(len(als.tar)) || rec.Compression != layertar.Gzip || fmt.Sprint(rec.UIDs) != "[0 7]" {
		t.Errorf("record: %+v", rec)
	}
	dir := mountAt(t, s, "top")
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "owned"), &st); err != nil || st.Uid != 7 {
		t.Errorf("owner %d, %v", st.Uid, err)
	}
	for name, there := range map[string]bool{"gone": false, "d/old": false, "d/new": true, ".wh.gone": false} {
		if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != there {
			t.Errorf("%s: %v", name, err)
		}
	}
	unmountFrom(t, s, "top")
	if !blob {
		return
	}
	tar, err := s.DiffTar(ctx, "top")
	if err != nil {
		t.Fatal(err)
	}
	h := digest.Canonical.Digester()
	if _, err := tar.Copy(ctx, h.Hash()); err != nil || h.Digest() != als.uncompressed {
		t.Errorf("the tar is %s, %v", h.Digest(), err)
	}
	if err := tar.Close(); err != nil {
		t.Error(err)
	}
	if got := check(t, s, store.CheckOptions{Level: store.CheckFull, UnreferencedAge: -1}); got != "" {
		t.Errorf("damage:\n%s", got)
	}
}

// What a layer store says is not believed without looking, and a refusal
// leaves nothing behind.
func TestAdditionalLayerRefused(t *testing.T) {
	t.Parallel()
	e := newLifeEnv(t, "vfs")
	ctx := context.Background()
	byLayer := func(s *layerStore) string { return s.layer.String() }
	good := makeLayerStore(t, false, byLayer, "")
	open := func(root string) *store.Store {
		return e.openWith(func(o store.Options) store.Options {
			o.LayerStores = []store.LayerStore{{Path: root}}
			return o
		})
	}
	s := open(good.root)
	_, err := s.LookupAdditionalLayer(ctx, digest.FromString("other"), "")
	want(t, err, errno.ErrUnknown)
	_, err = s.LookupAdditionalLayer(ctx, "sha256:12", "")
	want(t, err, errno.ErrBadValue)
	for _, info := range []string{"{", `{"compressed-diff-digest":"x"}`, `{"compressed-diff-digest":"` + string(digest.FromString("other")) + `"}`, `{"diff-size":-1}`} {
		bad := makeLayerStore(t, false, byLayer, info)
		_, err := open(bad.root).LookupAdditionalLayer(ctx, bad.layer, "")
		want(t, err, errno.ErrDamaged)
	}
	good.write(t, "blob", append(bytes.Clone(good.blob[:len(good.blob)-8]), make([]byte, 8)...))
	l, err := s.LookupAdditionalLayer(ctx, good.layer, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.Put(ctx, store.LayerSpec{ID: "top"})
	want(t, err, errno.ErrBadStream)
	var other bytes.Buffer
	z := gzip.NewWriter(&other)
	_, _ = z.Write(makeTar(t, entry{name: "other"}))
	_ = z.Close()
	good.write(t, "blob", other.Bytes())
	_, err = l.Put(ctx, store.LayerSpec{ID: "top"})
	want(t, err, errno.ErrBadStream)
	if err := l.Release(); err != nil {
		t.Error(err)
	}
	waitRemovals(t, s)
	_ = s.View(ctx, func(tx *store.Tx) error {
		if ids := tx.IDs(store.KindLayer); len(ids) != 0 {
			t.Errorf("layers %v", ids)
		}
		return nil
	})
	if left, err := os.ReadDir(filepath.Join(e.root, "plyfs")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestParseLayerStore(t *testing.T) {
	t.Parallel()
	for text, like := range map[string]store.LayerStore{
		"/a/b":     {Path: "/a/b"},
		"/a/b:ref": {Path: "/a/b", ByReference: true},
		"/a:c/":    {Path: "/a:c"},
	} {
		if got, err := store.ParseLayerStore(text); err != nil || got != like {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "a", ":ref", "a:ref"} {
		_, err := store.ParseLayerStore(text)
		want(t, err, errno.ErrBadValue)
	}
}
