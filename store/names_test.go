package store_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// plain is a store with two layers and an image, written by hand, so that the
// test needs no peer.
func plain(t testing.TB) (*store.Store, peer) {
	t.Helper()
	dir := t.TempDir()
	p := peer{dir + "/root", dir + "/run", "vfs"}
	p.write(t, store.KindLayer, `[{"id":"aa1","names":["x","y"],"created":"2026-01-02T03:04:05Z"},{"id":"aa2","names":["z"],"parent":"aa1","created":"2026-01-02T03:04:05Z"}]`)
	p.write(t, store.KindImage, `[{"id":"img","names":["i"],"layer":"aa2","created":"2026-01-02T03:04:05Z"}]`)
	return p.open(t), p
}

// write replaces a record file as another program would.
func (p peer) write(t testing.TB, k store.Kind, text string) {
	t.Helper()
	path := p.file(k, k.Plural()+".json")
	if err := os.MkdirAll(p.file(k, "."), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func namesOf(t testing.TB, s *store.Store, k store.Kind, id string) string {
	t.Helper()
	out := ""
	view(t, s, func(tx *store.Tx) error {
		names, _ := tx.Names(k, id)
		out = strings.Join(names, " ")
		for _, n := range names {
			if owner, ok := tx.ByName(k, n); !ok || owner != id {
				t.Errorf("name %q of %s belongs to %q", n, id, owner)
			}
		}
		return nil
	})
	return out
}

func TestNames(t *testing.T) {
	t.Parallel()
	type change = func(w *store.WriteTx) error
	L := store.KindLayer
	cases := []struct {
		name     string
		do       change
		err      error
		aa1, aa2 string
	}{
		{"add", func(w *store.WriteTx) error { return w.AddNames(L, "aa1", "n", "m", "n") }, nil, "n m x y", "z"},
		{"add moves", func(w *store.WriteTx) error { return w.AddNames(L, "aa2", "x") }, nil, "y", "x z"},
		{"add known", func(w *store.WriteTx) error { return w.AddNames(L, "aa1", "y") }, nil, "y x", "z"},
		{"set", func(w *store.WriteTx) error { return w.SetNames(L, "aa1", "z", "q") }, nil, "z q", ""},
		{"set none", func(w *store.WriteTx) error { return w.SetNames(L, "aa1") }, nil, "", "z"},
		{"remove", func(w *store.WriteTx) error { return w.RemoveNames(L, "aa1", "x", "nope") }, nil, "y", "z"},
		{"claim", func(w *store.WriteTx) error { return w.ClaimName(L, "aa1", "n", false) }, nil, "n x y", "z"},
		{"claim last", func(w *store.WriteTx) error { return w.ClaimName(L, "aa1", "x", true) }, nil, "y x", "z"},
		{"claim taken", func(w *store.WriteTx) error { return w.ClaimName(L, "aa1", "z", false) }, errno.ErrDuplicate, "x y", "z"},
		{"rename", func(w *store.WriteTx) error { return w.RenameName(L, "aa1", "x", "n") }, nil, "n y", "z"},
		{"rename to own", func(w *store.WriteTx) error { return w.RenameName(L, "aa1", "x", "y") }, nil, "y", "z"},
		{"rename taken", func(w *store.WriteTx) error { return w.RenameName(L, "aa1", "x", "z") }, errno.ErrDuplicate, "x y", "z"},
		{"rename unknown", func(w *store.WriteTx) error { return w.RenameName(L, "aa1", "z", "n") }, errno.ErrUnknown, "x y", "z"},
		{"no such layer", func(w *store.WriteTx) error { return w.AddNames(L, "aa", "n") }, errno.ErrUnknown, "x y", "z"},
		{"empty", func(w *store.WriteTx) error { return w.AddNames(L, "aa1", "n", "") }, errno.ErrBadValue, "x y", "z"},
		{"NUL", func(w *store.WriteTx) error { return w.AddNames(L, "aa1", "a\x00b") }, errno.ErrBadValue, "x y", "z"},
		{"line feed", func(w *store.WriteTx) error { return w.AddNames(L, "aa1", "a\nb") }, errno.ErrBadValue, "x y", "z"},
		{"not UTF-8", func(w *store.WriteTx) error { return w.AddNames(L, "aa1", "\xff") }, errno.ErrBadValue, "x y", "z"},
		{"too long", func(w *store.WriteTx) error { return w.AddNames(L, "aa1", strings.Repeat("n", 4097)) }, errno.ErrNameTooLong, "x y", "z"},
		{"control bytes", func(w *store.WriteTx) error { return w.SetNames(L, "aa1", "a\x01b") }, nil, "a\x01b", "z"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, p := plain(t)
			err := s.Update(context.Background(), c.do)
			if !errors.Is(err, c.err) || (c.err == nil) != (err == nil) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			for _, other := range []*store.Store{s, p.open(t)} {
				if got1, got2 := namesOf(t, other, L, "aa1"), namesOf(t, other, L, "aa2"); got1 != c.aa1 || got2 != c.aa2 {
					t.Errorf("names %q and %q, want %q and %q", got1, got2, c.aa1, c.aa2)
				}
			}
		})
	}
}

// The history of an image's names keeps every name once, the newest first, as
// the peer writes it (compare the peer's own in the same run).
func TestNamesHistory(t *testing.T) {
	t.Parallel()
	p := newPeer(t, "vfs")
	p.do(t, "create-image", "--id", "theirs", "-n", "a1")
	p.do(t, "create-image", "--id", "ours", "-n", "a2")
	p.do(t, "set-names", "-n", "b1", "-n", "c1", "theirs")
	p.do(t, "set-names", "-n", "d1", "theirs")
	s := p.open(t)
	for _, names := range [][]string{{"b2", "c2"}, {"d2"}} {
		update(t, s, func(w *store.WriteTx) error { return w.SetNames(store.KindImage, "ours", names...) })
	}
	view(t, s, func(tx *store.Tx) error {
		theirs := strings.ReplaceAll(strings.Join(tx.ImageByID("theirs").NamesHistory, " "), "1", "")
		ours := strings.ReplaceAll(strings.Join(tx.ImageByID("ours").NamesHistory, " "), "2", "")
		if theirs != ours {
			t.Errorf("history %q, the peer's %q", ours, theirs)
		}
		return nil
	})
}

// References: an ID, a name, the beginning of one ID, in this order.
func TestReferences(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	p.write(t, store.KindLayer, `[{"id":"abc","names":["abd"]},{"id":"abd","names":["ab"]},{"id":"abde"},{"id":"q1","names":["abde"]}]`)
	view(t, s, func(tx *store.Tx) error {
		for ref, want := range map[string]string{"abc": "abc", "abd": "abd", "ab": "abd", "abde": "abde", "q": "q1", "a": "", "": "", "zz": "", "q1x": ""} {
			l, err := tx.Layer(ref)
			if want == "" {
				if !errors.Is(err, errno.ErrUnknown) || l != nil {
					t.Errorf("%q: %v, %v", ref, l, err)
				}
			} else if err != nil || l.ID != want {
				t.Errorf("%q: %v, %v, want %s", ref, l, err, want)
			}
		}
		if _, err := tx.Layer("a"); err == nil || !strings.Contains(err.Error(), "abc, abd, abde") {
			t.Errorf("an ambiguous reference: %v", err)
		}
		if !slices.Equal(tx.IDs(store.KindLayer), []string{"abc", "abd", "abde", "q1"}) {
			t.Errorf("IDs %v", tx.IDs(store.KindLayer))
		}
		return nil
	})
}

// A name that two records have belongs to the later one; a read rewrites
// nothing, a save writes what was shown.
func TestDuplicateName(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	text := `[{"id":"a1","names":["dup","one"]},{"id":"a2","names":["dup"]},{"id":"a1x","created":"2026-01-02T03:04:05Z"}]`
	p.write(t, store.KindLayer, text)
	if got := namesOf(t, s, store.KindLayer, "a1") + "|" + namesOf(t, s, store.KindLayer, "a2"); got != "one|dup" {
		t.Errorf("names %q", got)
	}
	if read(t, p.file(store.KindLayer, "layers.json")) != text {
		t.Error("a read wrote")
	}
	update(t, s, func(w *store.WriteTx) error { return w.SetMetadata(store.KindLayer, "a1x", "md") })
	update(t, s, func(w *store.WriteTx) error { return w.RemoveNames(store.KindLayer, "a2", "dup") })
	for _, other := range []*store.Store{s, p.open(t)} {
		if got := namesOf(t, other, store.KindLayer, "a1") + "|" + namesOf(t, other, store.KindLayer, "a2"); got != "one|" {
			t.Errorf("names after the save %q", got)
		}
	}
	p.write(t, store.KindLayer, `[{"id":"a1","names":["dup","one"]},{"id":"a2","names":["dup"]}]`)
	namesOf(t, s, store.KindLayer, "a2")
	p.write(t, store.KindLayer, `[{"id":"a1","names":["dup","one"]},{"id":"a2"}]`)
	if got := namesOf(t, s, store.KindLayer, "a1"); got != "dup one" {
		t.Errorf("names after the other's record changed: %q", got)
	}
}
