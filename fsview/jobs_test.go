package fsview

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// TestJobs: one verb of a name runs at a time, says where it is, and can be
// interrupted; progress is bounded.
func TestJobs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := store.Open(context.Background(), store.Options{GraphRoot: dir + "/root", RunRoot: dir + "/run", DriverName: "vfs"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	f, err := New(Options{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	inside, ended := make(chan struct{}), make(chan error)
	go func() {
		ended <- f.run("check-full", func(j *job) error {
			j.at("object %d", 7)
			close(inside)
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	<-inside
	if text := string(f.jobs.text()); !strings.HasPrefix(text, "check-full running ") || !strings.HasSuffix(text, " object 7\n") {
		t.Errorf("while it runs: %q", text)
	}
	if err := f.run("check-quick", func(*job) error { return nil }); !errors.Is(err, errno.ErrInUse) {
		t.Errorf("a second check: %v", err)
	}
	if err := f.run("gc", func(*job) error { return nil }); err != nil {
		t.Errorf("another verb: %v", err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if text := string(f.jobs.text()); !strings.HasPrefix(text, "check-full interrupted ") || !strings.Contains(text, "\ngc done ") {
		t.Errorf("at the end: %q", text)
	}
	events, gap := f.jobs.since(0)
	var ops []string
	for _, e := range events {
		ops = append(ops, e.op+" "+e.text)
	}
	if got, want := strings.Join(ops, ", "), "check-full running, gc running, gc done, check-full interrupted"; got != want || gap {
		t.Errorf("events: %s (gap %t), want %s", got, gap, want)
	}
	for range 2 * jobEvents {
		if err := f.run("gc", func(j *job) error {
			for i := range jobFindings + 5 {
				j.found(fmt.Sprint(i))
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(string(f.jobs.text()), "\n"); n != jobLines+jobFindings+1 {
		t.Errorf("progress has %d lines", n)
	}
	if events, gap := f.jobs.since(1); len(events) != jobEvents || !gap {
		t.Errorf("%d events, gap %t", len(events), gap)
	}
}

// A gap stands where something is missing, not at the beginning: verbs that are
// older than the events which are kept come before it.
func TestGapStandsWhereItIs(t *testing.T) {
	t.Parallel()
	events := []store.Event{{Generation: 1526}, {Generation: 1527}}
	verbs := []jobEvent{{gen: 5, op: "gc"}, {gen: 615, op: "gc"}, {gen: 1526, op: "gc"}}
	for _, c := range []struct {
		events       []store.Event
		verbs        []jobEvent
		gap, verbGap bool
		want         string
	}{
		{events, verbs, true, false, "5 615 gap1526 1526 1526 1527"},
		{events, verbs, false, true, "gap5 5 615 1526 1526 1527"},
		{events, verbs, true, true, "gap5 5 615 gap1526 1526 1526 1527"},
		{events, nil, true, false, "gap1526 1526 1527"},
		{nil, verbs, true, false, "5 615 1526 gap1526"},
		{events, verbs, false, false, "5 615 1526 1526 1527"},
		{nil, nil, true, false, "gap0"},
	} {
		text, err := renderEvents(c.events, c.verbs, c.gap, c.verbGap)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for l := range strings.Lines(string(text)) {
			var e struct {
				Generation uint64
				Gap        bool
			}
			if err := json.Unmarshal([]byte(l), &e); err != nil {
				t.Fatal(err)
			}
			got = append(got, map[bool]string{true: "gap"}[e.Gap]+strconv.FormatUint(e.Generation, 10))
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("gaps %t %t: %s, want %s", c.gap, c.verbGap, g, c.want)
		}
	}
}
