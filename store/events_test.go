package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/store"
)

// patience bounds waits for what must come; only a failing test reaches it.
const patience = 30 * time.Second

func waiting(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// told waits until everything loaded is told, and returns it in short form.
func told(t testing.TB, s *store.Store, since uint64) string {
	t.Helper()
	if err := s.Settle(waiting(t)); err != nil {
		t.Fatal(err)
	}
	events, gap := s.Events(since)
	if gap {
		t.Error("there is a gap")
	}
	var out []string
	for _, e := range events {
		out = append(out, fmt.Sprint(e.Op, " ", e.Kind, " ", e.ID, e.Fields))
	}
	return strings.Join(out, ", ")
}

func generation(t testing.TB, s *store.Store) uint64 {
	t.Helper()
	gen, err := s.Refresh(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return gen
}

// The events are the difference of what was loaded, whoever made it.
func TestEventsTellDifferences(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	gen := generation(t, s)
	if got := told(t, s, 0); got != "" {
		t.Errorf("what was there at open is told as new: %s", got)
	}
	update(t, s, func(w *store.WriteTx) error {
		return firstError(w.AddNames(store.KindLayer, "aa1", "n"), w.SetMetadata(store.KindImage, "img", "m"))
	})
	if got, want := told(t, s, gen), "change layer aa1[names], change image img[metadata]"; got != want {
		t.Errorf("own change: %s", got)
	}
	var back store.Event
	events, _ := s.Events(gen)
	if err := json.Unmarshal([]byte(events[1].String()), &back); err != nil || !cmp.Equal(back, events[1]) {
		t.Errorf("%s reads back as %+v, %v", events[1], back, err)
	}
	gen = generation(t, s)
	p.write(t, store.KindLayer, `[{"id":"aa2","parent":"aa1"},{"id":"new","flags":{"a":1}}]`)
	if generation(t, s) != gen+1 {
		t.Errorf("generation %d after %d", generation(t, s), gen)
	}
	if got, want := told(t, s, gen), "delete layer aa1[], change layer aa2[created names], create layer new[]"; got != want {
		t.Errorf("foreign change: %s, want %s", got, want)
	}
	gen = generation(t, s)
	p.write(t, store.KindLayer, ` [ {"id":"aa2","parent":"aa1"} , {"flags":{"a":1},"id":"new"}]`)
	if generation(t, s) != gen || told(t, s, gen) != "" {
		t.Errorf("new white space is told as a change: %s", told(t, s, gen))
	}
	path := filepath.Join(p.run, "vfs-layers", "mountpoints.json")
	for _, step := range []struct{ text, want string }{
		{`[{"id":"aa2","path":"/m","count":1}]`, "mount layer aa2[]"},
		{`[{"id":"aa2","path":"/m","count":2}]`, "change layer aa2[mount]"},
		{`[]`, "umount layer aa2[]"},
	} {
		gen = generation(t, s)
		if err := os.WriteFile(path+"x", []byte(step.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+"x", path); err != nil {
			t.Fatal(err)
		}
		generation(t, s)
		if got := told(t, s, gen); got != step.want {
			t.Errorf("mounts %s: %s, want %s", step.text, got, step.want)
		}
	}
	// The folder goes in one step: the watcher makes files there meanwhile.
	if err := os.Rename(p.run, p.run+".lost"); err != nil {
		t.Fatal(err)
	}
	update(t, s, func(w *store.WriteTx) error { return w.AddNames(store.KindLayer, "aa2", "alive") })
}

// The watcher finds foreign changes by itself.
func TestWatchSeesPeers(t *testing.T) {
	t.Parallel()
	p := newPeer(t, "vfs")
	p.do(t, "create-layer", "--id", "base")
	s := p.open(t)
	gen := generation(t, s)
	p.do(t, "add-names", "-n", "foreign", "base")
	if _, err := s.WaitEvents(waiting(t), gen); err != nil {
		t.Fatal(err)
	}
	if got := told(t, s, gen); !strings.HasPrefix(got, "change layer base[names") {
		t.Errorf("events: %s", got)
	}
}

// Generation N is in Events only after every subscriber was told of it, in
// order; a subscriber may read and write the store; nothing deadlocks.
func TestSubscribers(t *testing.T) {
	t.Parallel()
	s, _ := plain(t)
	var last, wrote atomic.Uint64
	cancel := s.Subscribe(func(gen uint64) {
		if before := last.Swap(gen); gen <= before {
			t.Errorf("generation %d after %d", gen, before)
		}
		if events, _ := s.Events(gen - 1); len(events) > 0 {
			t.Errorf("generation %d is visible before its subscriber was told", gen)
		}
		view(t, s, func(tx *store.Tx) error {
			if tx.Generation() < gen {
				t.Errorf("told of %d, shown %d", gen, tx.Generation())
			}
			return nil
		})
		if wrote.Add(1) == 1 {
			update(t, s, func(w *store.WriteTx) error { return w.AddNames(store.KindLayer, "aa2", "by subscriber") })
		}
	})
	start := generation(t, s)
	for i := range 20 {
		update(t, s, func(w *store.WriteTx) error { return w.SetMetadata(store.KindLayer, "aa1", fmt.Sprint(i)) })
	}
	if _, err := s.WaitEvents(waiting(t), start+20); err != nil {
		t.Fatal(err)
	}
	if got := last.Load(); got != start+21 {
		t.Errorf("last told %d, want %d", got, start+21)
	}
	cancel()
	update(t, s, func(w *store.WriteTx) error { return w.SetMetadata(store.KindLayer, "aa1", "end") })
	told(t, s, 0)
	if got := last.Load(); got != start+21 {
		t.Errorf("told after cancel: %d", got)
	}
}

// The ring is bounded, and says when something fell out of it.
func TestEventsGap(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	start := generation(t, s)
	var b strings.Builder
	for round := range 3 {
		b.Reset()
		for i := range 3000 {
			fmt.Fprintf(&b, `,{"id":"r%d-%d"}`, round, i)
		}
		p.write(t, store.KindLayer, "["+b.String()[1:]+"]")
		generation(t, s)
	}
	if err := s.Settle(waiting(t)); err != nil {
		t.Fatal(err)
	}
	events, gap := s.Events(start)
	if !gap || len(events) == 0 || len(events) > 4096 {
		t.Errorf("%d events, gap %v", len(events), gap)
	}
	if events, gap := s.Events(generation(t, s)); len(events) != 0 || gap {
		t.Errorf("nothing is new: %d events, gap %v", len(events), gap)
	}
}

// A View that begins after a write has returned shows that write, whoever
// wrote and however busy the store is: the cheap look never shows less.
func TestViewIsNeverOld(t *testing.T) {
	t.Parallel()
	_, p := plain(t)
	s, other := p.open(t), p.open(t)
	var written atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				floor := written.Load()
				var got int64
				view(t, s, func(tx *store.Tx) error {
					_, err := fmt.Sscan(tx.LayerByID("aa1").Metadata+" 0", &got)
					return err
				})
				if got < floor {
					t.Errorf("shown %d, written before: %d", got, floor)
				}
			}
		})
	}
	for i := range int64(150) {
		by := other
		if i%5 == 0 {
			by = s
		}
		update(t, by, func(w *store.WriteTx) error { return w.SetMetadata(store.KindLayer, "aa1", fmt.Sprint(i)) })
		written.Store(i)
	}
	close(stop)
	wg.Wait()
}

// Whatever is written between two looks, applying the events to the first
// state gives the second.
func TestEventsAgainstStates(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	known := map[string]bool{"aa1": true, "aa2": true}
	gen := generation(t, s)
	rapid.Check(t, func(rt *rapid.T) {
		ids := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-e]{1,2}`), 0, 6, rapid.ID).Draw(rt, "ids")
		text := "["
		for i, id := range ids {
			if i > 0 {
				text += ","
			}
			text += fmt.Sprintf(`{"id":%q,"metadata":%q}`, id, rapid.StringMatching(`[xy]`).Draw(rt, "md"))
		}
		p.write(t, store.KindLayer, text+"]")
		generation(t, s)
		if err := s.Settle(waiting(t)); err != nil {
			t.Fatal(err)
		}
		events, _ := s.Events(gen)
		for _, e := range events {
			switch e.Op {
			case store.OpCreate:
				if known[e.ID] {
					rt.Fatalf("%s is created twice", e.ID)
				}
				known[e.ID] = true
			case store.OpDelete:
				if !known[e.ID] {
					rt.Fatalf("%s is deleted but was not there", e.ID)
				}
				delete(known, e.ID)
			}
			gen = max(gen, e.Generation)
		}
		if len(known) != len(ids) {
			rt.Fatalf("by events %v, in the file %v", known, ids)
		}
		for _, id := range ids {
			if !known[id] {
				rt.Fatalf("by events %v, in the file %v", known, ids)
			}
		}
	})
}

// Close ends every goroutine of the store.
func TestCloseEndsGoroutines(t *testing.T) {
	s, p := plain(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	for range 10 {
		s := p.open(t)
		update(t, s, func(w *store.WriteTx) error { return w.AddNames(store.KindLayer, "aa1", "n") })
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		runtime.Gosched()
		time.Sleep(time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}
