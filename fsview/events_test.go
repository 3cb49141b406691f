package fsview_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/drivers/vfs"
	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/store"
)

type eventLine struct {
	Generation uint64
	Kind, Op   string
	ID         string
	Names      []string
	State      string
	Gap        bool
}

func parseEvents(t *testing.T, text string) (list []eventLine) {
	t.Helper()
	for l := range strings.Lines(text) {
		var e eventLine
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		if n := len(list); n > 0 && e.Generation < list[n-1].Generation {
			t.Errorf("generation %d after %d", e.Generation, list[n-1].Generation)
		}
		list = append(list, e)
	}
	return list
}

func brief(list []eventLine) (words []string) {
	for _, e := range list {
		words = append(words, strings.TrimSpace(e.Op+" "+strings.Join(e.Names, ",")+e.State))
	}
	return words
}

// TestEventsSince: a reader that remembers a generation gets what came after.
func TestEventsSince(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	settle := func() {
		t.Helper()
		if err := w.store.Settle(w.ctx); err != nil {
			t.Fatal(err)
		}
	}
	w.mkdir("layers/a")
	w.mkdir("layers/b")
	settle()
	all := parseEvents(t, w.read("events"))
	w.same(brief(all), []string{"create a", "create b"}, "events")
	seen := all[0].Generation
	w.same(brief(parseEvents(t, w.read(fmt.Sprintf("events.since/%d", seen)))), []string{"create b"}, "since the first")
	w.same(w.read(fmt.Sprintf("events.since/%d", all[1].Generation)), "", "since the last")
	w.same(w.read("events.since/0"), w.read("events"), "since 0")
	w.is(w.write("ctl", "gc\n"), "OK", "gc")
	w.peer("delete-layer", strings.TrimSpace(w.read("layers/a/id")))
	w.read("layers/b/id") // loads
	settle()
	w.same(brief(parseEvents(t, w.read("events"))), []string{"create a", "create b", "gc running", "gc done", "delete a"}, "with the verb")
	f := w.open(fmt.Sprintf("events.since/%d.follow", seen), os.O_RDONLY)
	buf := make([]byte, 64<<10)
	n, err := f.h.ReadAt(w.ctx, buf, 0)
	f.ok(err)
	w.same(brief(parseEvents(t, string(buf[:n]))), []string{"create b", "gc running", "gc done", "delete a"}, "follow since the first")

	// A verb wakes who waits.
	got := make(chan string)
	go func() {
		n, err := f.h.ReadAt(w.ctx, buf, 0)
		if err != nil {
			t.Error(err)
		}
		got <- string(buf[:n])
	}()
	w.is(w.write("ctl", "check quick\n"), "OK", "check quick")
	if s := brief(parseEvents(t, <-got)); s[0] != "check-quick running" {
		t.Errorf("the waiting reader got %q", s)
	}
	f.ok(f.release())
	for _, bad := range []string{"x", "-1", "01", "1.foll", ".follow", "99999999999999999999"} {
		_, err := fsview.Walk(w.ctx, w.fs.Root(), "events.since/"+bad, true)
		w.is(err, "EINVAL", "events.since/"+bad)
	}
	w.same(w.ls("events.since"), []string{}, "ls events.since")
}

// TestEventsOfAnotherMount: who remembers a generation of an earlier mount, or
// one that was never shown, is told that there is a gap, and gets what there is.
func TestEventsOfAnotherMount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/a")
	before := w.store
	if err := before.Settle(w.ctx); err != nil {
		t.Fatal(err)
	}
	list := parseEvents(t, w.read("events"))
	old := list[len(list)-1].Generation
	v := w.reopened(store.Options{NewDriver: vfs.New})
	// At first this one has nothing to tell of, but what came between is not known.
	for _, n := range []uint64{old, old - 1, 1 << 60} {
		v.same(brief(parseEvents(t, v.read(fmt.Sprintf("events.since/%d", n)))), []string{""}, fmt.Sprint("since ", n))
		f := v.open(fmt.Sprintf("events.since/%d.follow", n), os.O_RDONLY)
		buf := make([]byte, 1<<10)
		k, err := f.h.ReadAt(v.ctx, buf, 0)
		f.ok(err)
		if l := parseEvents(t, string(buf[:k])); len(l) != 1 || !l[0].Gap {
			t.Errorf("following since %d: %s", n, buf[:k])
		}
		v.mkdir(fmt.Sprintf("layers/b%d", n))
		k, err = f.h.ReadAt(v.ctx, buf, 0)
		f.ok(err)
		last := brief(parseEvents(t, string(buf[:k])))
		v.same(last[len(last)-1], fmt.Sprintf("create b%d", n), "the next of the follower")
		f.ok(f.release())
		v.rmdir(fmt.Sprintf("layers/b%d", n))
		v = v.reopened(store.Options{NewDriver: vfs.New})
	}
	v.same(v.read("events"), "", "events of a mount that saw none")
}

// TestEventsGap: what is no longer kept is told as a gap, to everyone.
func TestEventsGap(t *testing.T) {
	t.Parallel()
	w := newWorldIn(t, memoryDir(t), "vfs")
	w.mkdir("layers/first")
	if err := w.store.Settle(w.ctx); err != nil {
		t.Fatal(err)
	}
	slow := w.open("events.follow", os.O_RDONLY)
	buf := make([]byte, 8<<20)
	n, err := slow.h.ReadAt(w.ctx, buf, 0)
	slow.ok(err)
	seen := parseEvents(t, string(buf[:n]))
	for i := range 50 {
		w.mkdir(fmt.Sprintf("layers/l%d", i))
	}
	for round := range 90 {
		err := w.store.Update(context.Background(), func(tx *store.WriteTx) error {
			for l := range tx.Layers() {
				if err := tx.SetMetadata(store.KindLayer, l.ID, fmt.Sprint(round)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.store.Settle(w.ctx); err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"events":            w.read("events"),
		"since":             w.read(fmt.Sprintf("events.since/%d", seen[0].Generation)),
		"the slow follower": func() string { n, err := slow.h.ReadAt(w.ctx, buf, 0); slow.ok(err); return string(buf[:n]) }(),
	} {
		if list := parseEvents(t, text); !list[0].Gap || len(list) < 4000 {
			t.Errorf("%s: %d lines, the first says gap: %t", what, len(list), list[0].Gap)
		}
	}
	last := parseEvents(t, w.read("events"))
	near := last[len(last)-200].Generation
	if list := parseEvents(t, w.read(fmt.Sprintf("events.since/%d", near))); list[0].Gap {
		t.Error("a gap is told where there is none")
	}
	slow.ok(slow.release())
}
