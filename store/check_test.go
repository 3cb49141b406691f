package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// check returns the lines of a check, which must not fail.
func check(t testing.TB, s *store.Store, o store.CheckOptions) string {
	t.Helper()
	r, err := s.Check(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for f := range r.All() {
		lines = append(lines, f.Line())
	}
	return strings.Join(lines, "\n")
}

// A store without damage is clean at every level, and says so as the peers do.
func TestCheckClean(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		prepare(t, e)
		s := e.open()
		before := treeSum(t, e.root)
		for _, level := range []store.CheckLevel{store.CheckQuick, store.CheckData, store.CheckFull} {
			if got := check(t, s, store.CheckOptions{Level: level}); got != "" {
				t.Errorf("level %d:\n%s", level, got)
			}
		}
		r := get(t, s.Check, context.Background(), store.CheckOptions{})
		b, err := json.Marshal(r)
		if want := `{"Layers":{},"ROLayers":{},"Images":{},"ROImages":{},"Containers":{}}`; err != nil || string(b) != want {
			t.Errorf("%s, %v", b, err)
		}
		if !r.Clean() || r.Summary() != "" {
			t.Errorf("summary %q", r.Summary())
		}
		if treeSum(t, e.root) != before {
			t.Error("a check has changed the store")
		}
	})
}

// Layers that nothing needs are told from the given age on.
func TestCheckUnreferenced(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		prepare(t, e)
		s := e.open()
		const words = ": layer not referenced by any images or containers"
		if got := check(t, s, store.CheckOptions{UnreferencedAge: -1}); got != "" {
			t.Error(got)
		}
		got := check(t, s, store.CheckOptions{UnreferencedAge: 1})
		want := "layer empty" + words + "\nlayer full" + words
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		got = check(t, s, store.CheckOptions{UnreferencedAge: 1, Kind: store.KindLayer, ID: "f"})
		if got != "layer full"+words {
			t.Error(got)
		}
	})
}

// Each level finds what it reads, in the peers' words.
func TestCheckBigData(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		prepare(t, e)
		s := e.open()
		if err := s.SetBigData(context.Background(), store.KindImage, "img", "datafile", strings.NewReader("12345")); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(s.KindDir(store.KindImage), "img", "datafile")
		for _, c := range []struct{ text, quick, data string }{
			{"12345", "", ""},
			{"123456", `image img: data item "datafile": image data item has incorrect size`, `image img: data item "datafile": image data item has incorrect size`},
			{"12344", "", `image img: data item "datafile": image data item has incorrect digest`},
			{"", `image img: data item "datafile": image data item is missing`, `image img: data item "datafile": image data item is missing`},
		} {
			err := os.WriteFile(file, []byte(c.text), 0o600)
			if c.text == "" {
				err = errors.Join(err, os.Remove(file))
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := check(t, s, store.CheckOptions{}); got != c.quick {
				t.Errorf("%q, quick: %s", c.text, got)
			}
			if got := check(t, s, store.CheckOptions{Level: store.CheckData}); got != c.data {
				t.Errorf("%q: %s", c.text, got)
			}
		}
	})
}

// A check ends with its context, and an unknown object is told.
func TestCheckEnds(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		prepare(t, e)
		s := e.open()
		ctx, cancel := context.WithCancel(context.Background())
		calls := 0
		_, err := s.Check(ctx, store.CheckOptions{Level: store.CheckFull, Progress: func(p store.CheckProgress) {
			if calls++; p.Object != calls || p.Objects < calls {
				t.Errorf("call %d: %+v", calls, p)
			}
			if calls == 2 {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) || calls != 2 {
			t.Errorf("%d calls, %v", calls, err)
		}
		_, err = s.Check(context.Background(), store.CheckOptions{Kind: store.KindImage, ID: "nope"})
		wantErr(t, err, errno.ErrUnknown, "nope")
	})
}

// TestGarbageCollectOfWhatOpenBegan: a process that only collects garbage leaves
// none, though opening has begun to remove it already.
func TestGarbageCollectOfWhatOpenBegan(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		prepare(t, e)
		entry := e.leaveEntry(t)
		if _, err := e.open().GarbageCollect(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(entry); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", entry, err)
		}
	})
}

// TestBriefLeavesNothing: a command that only opens the store and ends removes
// all that a killed process left.
func TestBriefLeavesNothing(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		prepare(t, e)
		entry := e.leaveEntry(t)
		o := e.options()
		o.Brief = true
		s := get(t, store.Open, context.Background(), o)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(entry); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", entry, err)
		}
	})
}

// leaveEntry makes an entry of the extract area as a killed process leaves it,
// so large that its removal takes a while.
func (e *lifeEnv) leaveEntry(t *testing.T) string {
	t.Helper()
	entry := filepath.Join(e.root, "plyfs", "0123456789abcdef")
	if err := os.MkdirAll(filepath.Join(entry, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		if err := os.WriteFile(filepath.Join(entry, "d", strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return entry
}

// GarbageCollect removes what dead processes left, and says what.
func TestGarbageCollect(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		prepare(t, e)
		s := e.open()
		before := e.snapshot(t)
		entry := filepath.Join(e.root, "plyfs", "0123456789abcdef")
		files := []string{
			filepath.Join(entry, "d", "x", "y"), entry + ".lock",
			filepath.Join(s.KindDir(store.KindImage), ".tmp-images.json17"),
			filepath.Join(s.KindDir(store.KindImage), "img", ".tmp-manifest4"),
		}
		for _, f := range files {
			if err := errors.Join(os.MkdirAll(filepath.Dir(f), 0o700), os.WriteFile(f, []byte("x"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		get(t, s.CreateLayer, context.Background(), store.LayerSpec{ID: "half"})
		e.markIncomplete(t, "layers", "half")
		var steps []string
		got, err := s.GarbageCollect(context.Background(), func(done, all int) { steps = append(steps, fmt.Sprintf("%d/%d", done, all)) })
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(store.Swept{Layers: []string{"half"}, Entries: 1, Files: 2}, got); diff != "" {
			t.Error(diff)
		}
		if len(steps) != 1 || steps[0] != "0/1" {
			t.Errorf("progress: %v", steps)
		}
		waitRemovals(t, s) // of the half-made layer's directories
		for _, f := range files {
			if _, err := os.Lstat(f); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v", f, err)
			}
		}
		if diff := cmp.Diff(before, e.snapshot(t)); diff != "" {
			t.Error(diff)
		}
		if got, err = s.GarbageCollect(context.Background(), nil); err != nil || got.Entries+got.Files+len(got.Layers) != 0 {
			t.Errorf("again: %+v, %v", got, err)
		}
	})
}

// A mount that went away without the table of mounts is told, by whomever it was
// counted, and mended with force only, since another mount namespace may have it.
func TestCheckMountCount(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "lay"})
		e.peer("mount", "lay")
		none := store.CheckOptions{UnreferencedAge: -1}
		if got := check(t, s, none); got != "" {
			t.Errorf("mounted: %s", got)
		}
		mnt := filepath.Join(e.root, "overlay/lay/merged")
		if e.driver != "overlay" { // nothing is mounted, and the count is all there is
			e.peer("unmount", "lay")
			return
		}
		if err := unix.Unmount(mnt, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		const want = "layer lay: layer is counted as mounted but is not mounted here"
		if got := check(t, s, none); got != want {
			t.Errorf("unmounted by hand: %q", got)
		}
		report := get(t, s.Check, ctx, none)
		_, err := s.Repair(ctx, report, store.RepairOptions{})
		wantErr(t, err, errno.ErrInUse, "mount namespace")
		if got := check(t, s, none); got != want {
			t.Errorf("after a repair without force: %q", got)
		}
		if _, err := s.Repair(ctx, report, store.RepairOptions{Force: true}); err != nil {
			t.Error(err)
		}
		if got := check(t, s, none); got != "" {
			t.Errorf("after a repair with force: %q", got)
		}
		e.peer("mount", "lay")
		e.peer("unmount", "lay")
	})
}
