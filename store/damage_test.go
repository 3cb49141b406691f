package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

func damaged(t testing.TB, s *store.Store, k store.Kind) string {
	t.Helper()
	var all []string
	view(t, s, func(tx *store.Tx) error {
		for _, b := range tx.Damaged(k) {
			if !errors.Is(b.Err, errno.ErrDamaged) {
				t.Errorf("%v is not ErrDamaged", b.Err)
			}
			all = append(all, b.ID+": "+b.Err.Error())
		}
		return nil
	})
	return strings.Join(all, "\n")
}

// A file cut off at any byte opens: the records before the cut are shown, the
// kind is read-only, the other kinds are not, the file is left as it is.
func TestTruncatedFile(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	path := p.file(store.KindLayer, "layers.json")
	whole := read(t, path)
	for cut := 1; cut < len(whole); cut += 7 {
		p.write(t, store.KindLayer, whole[:cut])
		view(t, s, func(tx *store.Tx) error {
			want := strings.Count(whole[:cut], "Z\"}")
			if got := tx.Len(store.KindLayer); got != want {
				t.Errorf("cut at %d: %d layers, want %d", cut, got, want)
			}
			return nil
		})
		if d := damaged(t, s, store.KindLayer); !strings.Contains(d, path) {
			t.Errorf("cut at %d: damage %q", cut, d)
		}
	}
	p.write(t, store.KindLayer, whole[:len(whole)-2])
	for _, other := range []*store.Store{s, p.open(t)} {
		err := other.Update(context.Background(), func(w *store.WriteTx) error { return w.AddNames(store.KindLayer, "aa1", "n") })
		if !errors.Is(err, errno.ErrDamaged) {
			t.Errorf("write to a damaged kind: %v", err)
		}
		update(t, other, func(w *store.WriteTx) error { return w.AddNames(store.KindImage, "img", "n") })
	}
	if got := read(t, path); got != whole[:len(whole)-2] {
		t.Errorf("the damaged file was changed to %q", got)
	}
	p.write(t, store.KindLayer, whole)
	update(t, s, func(w *store.WriteTx) error { return w.AddNames(store.KindLayer, "aa1", "n") })
}

// Empty and missing files hold nothing and can be written.
func TestEmptyFiles(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", " \n", "null", "[]"} {
		s, p := plain(t)
		p.write(t, store.KindLayer, text)
		if err := os.Remove(p.file(store.KindImage, "images.json")); err != nil {
			t.Fatal(err)
		}
		view(t, s, func(tx *store.Tx) error {
			if tx.Len(store.KindLayer)+tx.Len(store.KindImage) != 0 {
				t.Errorf("%q: there are objects", text)
			}
			return nil
		})
		if d := damaged(t, s, store.KindLayer); d != "" {
			t.Errorf("%q: damage %s", text, d)
		}
	}
}

// One bad record is shown as damaged, can be removed by others' means, and
// keeps nobody from anything.
func TestBadRecords(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	bad := `{"id":"../../etc","x":1},{"id":"a/b"},{"id":".."},5,{"names":["noid"]},{"id":"dup","metadata":"first"},{"id":"badnames","names":7},{"id":"orphan","parent":"nope"},{"id":"dup","metadata":"second"}`
	p.write(t, store.KindLayer, `[`+bad+`]`)
	view(t, s, func(tx *store.Tx) error {
		if got := strings.Join(tx.IDs(store.KindLayer), " "); got != "badnames dup orphan" {
			t.Errorf("shown: %s", got)
		}
		if l := tx.LayerByID("dup"); l == nil || l.Metadata != "second" {
			t.Errorf("of two the later counts: %+v", l)
		}
		for id, ok := range map[string]bool{"badnames": false, "orphan": false, "dup": true} {
			if err := tx.Damage(store.KindLayer, id); (err == nil) != ok {
				t.Errorf("damage of %s: %v", id, err)
			}
		}
		return nil
	})
	d := damaged(t, s, store.KindLayer)
	for _, want := range []string{"../../etc", "a/b", "..", "noid", "dup", "badnames", "orphan"} {
		if want != "noid" && !strings.Contains(d, want) {
			t.Errorf("%s is not among the damaged:\n%s", want, d)
		}
	}
	err := s.Update(context.Background(), func(w *store.WriteTx) error { return w.SetMetadata(store.KindLayer, "badnames", "x") })
	if !errors.Is(err, errno.ErrDamaged) {
		t.Errorf("change of a damaged record: %v", err)
	}
	update(t, s, func(w *store.WriteTx) error { return w.SetMetadata(store.KindLayer, "orphan", "x") })
	after := read(t, p.file(store.KindLayer, "layers.json"))
	for _, kept := range []string{`{"id":"../../etc","x":1}`, `{"id":"a/b"}`, `,5,`, `{"names":["noid"]}`, `{"id":"dup","metadata":"first"}`, `{"id":"badnames","names":7}`} {
		if !strings.Contains(after, kept) {
			t.Errorf("%s is gone from %s", kept, after)
		}
	}
	view(t, p.open(t), func(tx *store.Tx) error {
		if l := tx.LayerByID("dup"); l == nil || l.Metadata != "second" {
			t.Errorf("after a save the other counts: %+v", l)
		}
		return nil
	})
}

// What has no record is shown, and left.
func TestUnrecorded(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	for _, f := range []string{"lost.tar-split.gz", "aa1.tar-split.gz"} {
		if err := os.WriteFile(p.file(store.KindLayer, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(p.file(store.KindImage, "gone/userdata"), 0o700); err != nil {
		t.Fatal(err)
	}
	if d := damaged(t, s, store.KindLayer); !strings.HasPrefix(d, "lost: ") || strings.Contains(d, "aa1") {
		t.Errorf("layers: %s", d)
	}
	if d := damaged(t, s, store.KindImage); !strings.HasPrefix(d, "gone: ") {
		t.Errorf("images: %s", d)
	}
}

// An additional store is read with no lock and no write; our own records and
// names come first, and come off again.
func TestAdditionalStore(t *testing.T) {
	t.Parallel()
	_, extra := plain(t)
	dir := t.TempDir()
	p := peer{dir + "/root", dir + "/run", "vfs"}
	p.write(t, store.KindLayer, `[{"id":"mine","names":["x"]}]`)
	s := p.open(t, func(o *store.Options) { o.ImageStores = []string{extra.root} })
	before := tree(t, extra.root)
	view(t, s, func(tx *store.Tx) error {
		l, img := tx.LayerByID("aa1"), tx.ImageByID("img")
		if l == nil || !l.ReadOnly || img == nil || !img.ReadOnly || tx.LayerByID("mine").ReadOnly {
			t.Errorf("%+v %+v", l, img)
		}
		return nil
	})
	if got := namesOf(t, s, store.KindLayer, "aa1") + "|" + namesOf(t, s, store.KindLayer, "mine"); got != "y|x" {
		t.Errorf("names %q", got)
	}
	err := s.Update(context.Background(), func(w *store.WriteTx) error { return w.AddNames(store.KindLayer, "aa1", "n") })
	if !errors.Is(err, errno.ErrReadOnly) {
		t.Errorf("change of an additional store's layer: %v", err)
	}
	update(t, s, func(w *store.WriteTx) error { return w.AddNames(store.KindImage, "img", "n") })
	for _, other := range []*store.Store{s, p.open(t, func(o *store.Options) { o.ImageStores = []string{extra.root} })} {
		view(t, other, func(tx *store.Tx) error {
			if img := tx.ImageByID("img"); img.ReadOnly || strings.Join(img.Names, " ") != "n i" || img.TopLayer != "aa2" {
				t.Errorf("the renamed image: %+v", img)
			}
			return nil
		})
	}
	if after := tree(t, extra.root); after != before {
		t.Errorf("the additional store was touched:\n%s\nwas\n%s", after, before)
	}
	extra.write(t, store.KindLayer, `[]`)
	view(t, s, func(tx *store.Tx) error {
		if tx.LayerByID("aa1") != nil {
			t.Error("a change of the additional store is not seen")
		}
		return nil
	})
}

// tree is a listing with sizes and times.
func tree(t testing.TB, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(root, func(path string, fi os.FileInfo, err error) error {
		if err == nil {
			b.WriteString(path + " " + fi.Mode().String() + " " + fi.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A store opened read-only makes, locks and writes nothing, even where
// nothing may be written; a missing one is a sentence.
func TestReadOnlyStore(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	update(t, s, func(w *store.WriteTx) error { return w.AddNames(store.KindImage, "img", "n") })
	before := tree(t, p.root)
	ro := p.open(t, func(o *store.Options) { o.ReadOnly = true; o.RunRoot = filepath.Join(p.run, "none") })
	if got := namesOf(t, ro, store.KindImage, "img"); got != "n i" {
		t.Errorf("names %q", got)
	}
	err := ro.Update(context.Background(), func(w *store.WriteTx) error { return nil })
	if !errors.Is(err, errno.ErrReadOnly) {
		t.Errorf("update: %v", err)
	}
	if after := tree(t, p.root); after != before {
		t.Errorf("reading wrote:\n%s\nwas\n%s", after, before)
	}
	for _, o := range []store.Options{
		{GraphRoot: p.root + "/none", RunRoot: p.run, DriverName: "vfs", MustExist: true},
		{GraphRoot: p.root, RunRoot: p.run, DriverName: "btrfs", ReadOnly: true},
	} {
		if _, err := store.Open(context.Background(), o); !errors.Is(err, errno.ErrUnknown) || !strings.Contains(err.Error(), o.GraphRoot) {
			t.Errorf("missing store: %v", err)
		}
	}
	for _, o := range []store.Options{{GraphRoot: "rel", RunRoot: p.run, DriverName: "vfs"}, {GraphRoot: p.root, RunRoot: p.run, DriverName: "../x"}} {
		if _, err := store.Open(context.Background(), o); !errors.Is(err, errno.ErrBadValue) {
			t.Errorf("bad options: %v", err)
		}
	}
}
