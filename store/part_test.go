package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// kept opens a store as commands do, and keeps its first snapshot.
func kept(t *testing.T, e *lifeEnv) *store.Tx {
	t.Helper()
	o := e.options()
	o.Brief = true
	s, err := store.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	var tx *store.Tx
	view(t, s, func(t *store.Tx) error { tx = t; return nil })
	return tx
}

// fill writes so many records without directories that their file is long.
func fill(t *testing.T, e *lifeEnv, kind string, n int) {
	t.Helper()
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`{"id":"%s%d","names":["%s-%d"],"created":"2026-01-02T03:04:05Z"}`, kind, i, strings.Repeat("n", 100), i))
	}
	path := filepath.Join(e.kind(kind), kind+".json")
	if err := errors.Join(os.WriteFile(path+".new", []byte("["+strings.Join(list, ",")+"]"), 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// openRecords are the record files below the store that this process has open.
func openRecords(t *testing.T, e *lifeEnv) (open []string) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("what is open cannot be told: %v", err)
	}
	for _, fd := range fds {
		// One that was closed meanwhile is another test's.
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, e.root) && strings.Contains(to, ".json") {
			open = append(open, to)
		}
	}
	return open
}

// A long file is read when it is asked for: what it was when it was loaded,
// whatever took its place; and it is closed with the store.
func TestLongFilesAreReadLate(t *testing.T) {
	t.Parallel()
	e := newLifeEnv(t, "overlay")
	closeStore(t, e.open())
	fill(t, e, "layers", 1000)
	fill(t, e, "images", 1000)
	o := e.options()
	o.Brief = true
	s, err := store.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	var early *store.Tx
	view(t, s, func(tx *store.Tx) error { early = tx; return nil })
	if open := openRecords(t, e); len(open) != 2 {
		t.Errorf("%v are open, want layers and images", open)
	}
	fill(t, e, "layers", 1001)
	if n := early.Len(store.KindLayer); n != 1000 || early.LayerByID("layers999") == nil {
		t.Errorf("%d layers, want the 1000 that were loaded", n)
	}
	view(t, s, func(tx *store.Tx) error {
		if n := tx.Len(store.KindLayer); n != 1001 {
			t.Errorf("%d layers, want 1001", n)
		}
		return nil
	})
	closeStore(t, s)
	if open := openRecords(t, e); len(open) != 0 {
		t.Errorf("%v are open still", open)
	}
}

// The flag is found wherever the chunks of a long text are cut.
func TestFlagInLongFile(t *testing.T) {
	t.Parallel()
	e := newLifeEnv(t, "overlay")
	closeStore(t, e.open())
	path := filepath.Join(e.kind("layers"), "layers.json")
	const at = 64 << 10
	for cut := -12; cut <= 12; cut += 3 {
		head := `[{"id":"pad","metadata":"`
		tail := `","created":"2026-01-02T03:04:05Z"},{"id":"half","created":"2026-01-02T03:04:05Z","flags":{"`
		text := head + strings.Repeat("x", at+cut-len(head)-len(tail)) + tail + `incomplete":true}}]`
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if tx := kept(t, e); tx.LayerByID("half") != nil || tx.LayerByID("pad") == nil {
			t.Errorf("cut at %d: half %v", cut, tx.LayerByID("half"))
		}
	}
}

// What a snapshot says of a kind that it is asked about late is of the moment
// at which it was taken, whatever was written since.
func TestLateQuestionsAreOfOneMoment(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	e := newLifeEnv(t, "overlay")
	s := e.open()
	defer closeStore(t, s)
	importLayer(t, s, store.LayerSpec{ID: "first"}, makeTar(t, entry{name: "f", text: "x"}))
	early := kept(t, e)
	get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "second", Parent: "first"})
	get(t, s.CreateMinimalImage, ctx, store.ImageSpec{ID: "img", Layer: "first"})
	late := kept(t, e)
	if early.Len(store.KindImage) != 0 || early.LayerByID("second") != nil || early.LayerByID("first") == nil {
		t.Error("the earlier snapshot has what was made after it, or lacks what was there")
	}
	if late.LayerByID("second") == nil || late.ImageByID("img") == nil || len(late.ImagesOn("first")) != 1 {
		t.Error("the later snapshot lacks what was made before it")
	}
	if !late.Modified(store.KindLayer).After(early.Modified(store.KindLayer)) {
		t.Error("the later snapshot is not modified later")
	}
}

// A question about one kind decodes no other; so damage shows with the first
// question about the kind that has it.
func TestDecodedOnDemand(t *testing.T) {
	t.Parallel()
	e := newLifeEnv(t, "overlay")
	closeStore(t, e.open())
	path := filepath.Join(e.kind("layers"), "layers.json")
	if err := os.WriteFile(path, []byte(`[{"id":"whole","created":"2026-01-02T03:04:05Z"},{"id":"cut`), 0o600); err != nil {
		t.Fatal(err)
	}
	tx := kept(t, e)
	if n := tx.Len(store.KindImage); n != 0 || len(tx.Unreadable()) != 0 {
		t.Errorf("%d images; %v: the layers were decoded", n, tx.Unreadable())
	}
	if tx.LayerByID("whole") == nil {
		t.Error("the record before the damage is not shown")
	}
	if u := tx.Unreadable(); len(u) != 1 || !errors.Is(u[0], errno.ErrDamaged) {
		t.Errorf("after a question about layers: %v", u)
	}
}

// A record flagged incomplete is found in the text, however the flag is spelt,
// by an opening that asks nothing; and so is the temporary file of a save.
func TestBriefOpeningSweeps(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"incomplete", `\u0069ncomplete`} {
		e := newLifeEnv(t, "overlay")
		closeStore(t, e.open())
		path := filepath.Join(e.kind("layers"), "layers.json")
		text := `[{"id":"half","created":"2026-01-02T03:04:05Z","flags":{"` + flag + `":true}},{"id":"whole","created":"2026-01-02T03:04:05Z"}]`
		temps := []string{filepath.Join(e.kind("layers"), ".tmp-layers.json0"), filepath.Join(e.kind("layers"), ".tmp-layers.json12345")}
		for _, err := range []error{os.WriteFile(path, []byte(text), 0o600), os.WriteFile(temps[0], nil, 0o600), os.WriteFile(temps[1], nil, 0o600)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		tx := kept(t, e)
		if tx.LayerByID("half") != nil || tx.LayerByID("whole") == nil {
			t.Errorf("%s: half %v, whole %v", flag, tx.LayerByID("half"), tx.LayerByID("whole"))
		}
		for _, temp := range temps {
			if _, err := os.Lstat(temp); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %s is left (%v)", flag, temp, err)
			}
		}
	}
}
