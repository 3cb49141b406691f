package fsview

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

// eventRows are the rows of what happened and happens.
func eventRows() []Row {
	const none = vnode.ValidNone
	const since = "/events.since"
	return []Row{
		{Path: "/events", Kind: Text, Mode: modeRead, Valid: none, Doc: "The recent changes of the store by any process, and the verbs of ctl, as JSON lines (generation, time, kind, op, id, names, fields, state), oldest first; it ends. A line with `\"gap\":true` stands right before the first change, or the first verb, whose predecessors are no longer kept: behind the last such line nothing is missing.",
			rowOps: rowOps{get: eventsText, mtime: eventsTime}},
		{Path: "/events.follow", Kind: Stream, Mode: modeRead, Valid: none, Listed: Never, Doc: "The same, and then each further change as it is made: a read waits for it. Several may read; each gets all lines, or a line with `\"gap\":true` where it was too slow.",
			rowOps: rowOps{blob: openFollow, mtime: eventsTime}},
		{Path: since, Kind: Dir, Mode: modeDir, Valid: vnode.ValidForever, Listed: Never, Doc: "The same from a generation on; lists nothing.",
			rowOps: rowOps{find: findSince}},
		{Path: since + "/<N>", Kind: Text, Mode: modeRead, Valid: none, Doc: "What events shows of the generations after N. Lines about verbs have the generation that they met, so those of N are given again. Generations grow from mount to mount: after one of an earlier mount, or one that was never shown, a line with `\"gap\":true` stands before all that is kept.",
			rowOps: rowOps{get: eventsText, mtime: eventsTime}},
		{Path: since + "/<N>.follow", Kind: Stream, Mode: modeRead, Valid: none, Doc: "The same, and then as events.follow.",
			rowOps: rowOps{blob: openFollow, mtime: eventsTime}},
	}
}

func eventsTime(p place) time.Time {
	t := modifiedAny(p)
	if j := p.fs.jobs.modified(); j.After(t) {
		return j
	}
	return t
}

func findSince(_ context.Context, p place, name string) (entry, error) {
	digits, follows := strings.CutSuffix(name, ".follow")
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != digits {
		return entry{}, errno.New(errno.ErrBadValue, "%q is no generation: write a number, as events shows them, or a number and .follow", clip(name))
	}
	row := p.row.child("<N>")
	if follows {
		row = p.row.child("<N>.follow")
	}
	return entry{name, where{row: row, id: name}}, nil
}

// since is the generation that the place's name says; 0 for others.
func (p place) since() uint64 {
	n, err := strconv.ParseUint(strings.TrimSuffix(p.id, ".follow"), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// eventCache keeps the text of the ring, which listings ask the size of.
type eventCache struct {
	mu   sync.Mutex
	gen  uint64 // of the last event in text; guarded by mu
	n    int    // events of the store in text; guarded by mu
	jobs uint64 // the last of verbs in text; guarded by mu
	text []byte // never changed, only replaced; guarded by mu
}

// eventLine is the form of one line of events. Op of a verb of ctl is the verb,
// Kind and ID are those of the object that it is about, or "store" and none,
// and State is how far it is.
type eventLine struct {
	Generation uint64    `json:"generation"`
	Time       time.Time `json:"time"`
	Kind       string    `json:"kind"`
	Op         string    `json:"op"`
	ID         string    `json:"id,omitempty"`
	Names      []string  `json:"names,omitempty"`
	Fields     []string  `json:"fields,omitempty"`
	State      string    `json:"state,omitempty"`

	verb bool // it is one of ctl
}

func eventsText(p place) ([]byte, error) {
	since := p.since()
	events, gap := p.fs.store.Events(since)
	verbs, verbGap := p.fs.jobs.since(0)
	if since == 0 {
		return p.fs.events.render(events, verbs, gap, verbGap)
	}
	if since <= p.tx.Generation() {
		verbs = slices.DeleteFunc(verbs, func(e jobEvent) bool { return e.gen < since })
	}
	return renderEvents(events, verbs, gap, false)
}

func (c *eventCache) render(events []store.Event, verbs []jobEvent, gap, verbGap bool) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var last, jobs uint64
	if len(events) > 0 {
		last = events[len(events)-1].Generation
	}
	if len(verbs) > 0 {
		jobs = verbs[len(verbs)-1].seq
	}
	if c.gen == last && c.n == len(events) && c.jobs == jobs {
		return c.text, nil
	}
	text, err := renderEvents(events, verbs, gap, verbGap)
	if err != nil {
		return nil, err
	}
	c.gen, c.n, c.jobs, c.text = last, len(events), jobs, text
	return c.text, nil
}

// renderEvents writes the lines in the order of generations. gap says that
// events of the store are missing that are older than the first one here: a line
// says so right before it (there may be older verbs), and behind it nothing is
// missing. verbGap says the same of verbs.
func renderEvents(events []store.Event, verbs []jobEvent, gap, verbGap bool) ([]byte, error) {
	lines := make([]eventLine, 0, len(events)+len(verbs))
	for _, e := range events {
		lines = append(lines, eventLine{Generation: e.Generation, Time: e.Time.UTC(), Kind: e.Kind.String(), Op: string(e.Op), ID: e.ID, Names: e.Names, Fields: e.Fields})
	}
	for _, v := range verbs {
		lines = append(lines, eventLine{Generation: v.gen, Time: v.when.UTC(), Kind: v.kind, Op: v.op, ID: v.id, State: v.text, verb: true})
	}
	slices.SortStableFunc(lines, func(a, b eventLine) int { return cmp.Compare(a.Generation, b.Generation) })
	var b bytes.Buffer
	tell := func(gen uint64) { fmt.Fprintf(&b, "{\"generation\":%d,\"gap\":true}\n", gen) }
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	var gen uint64
	for _, l := range lines {
		gen = l.Generation
		missing := &gap
		if l.verb {
			missing = &verbGap
		}
		if *missing {
			*missing = false
			tell(gen)
		}
		if err := enc.Encode(l); err != nil {
			return nil, fmt.Errorf("encoding an event: %w", err)
		}
	}
	if gap || verbGap { // of a kind that has no line
		tell(gen)
	}
	return b.Bytes(), nil
}

// follower is the content of events.follow: the ring, and then every further
// event as it becomes visible. A read returns what there is, and waits only
// when there is nothing. It ends when the store is closed.
type follower struct {
	fs *FS

	mu   sync.Mutex // guards what follows; held while a read waits
	last uint64     // generation of the last event that was fetched
	verb uint64     // the last event of a verb that was fetched
	text []byte     // fetched and not yet read
}

func openFollow(_ context.Context, p place) (blob, error) {
	f := &follower{fs: p.fs, last: p.since()}
	if f.last > 0 && f.last <= p.tx.Generation() {
		f.verb = p.fs.jobs.before(f.last)
	}
	return f, nil
}

func (f *follower) readAt(ctx context.Context, p []byte, _ int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.text) == 0 {
		if err := f.fetchLocked(); err != nil {
			return 0, err
		}
		if len(f.text) > 0 {
			break
		}
		if ended, err := f.waitLocked(ctx); ended || err != nil {
			return 0, err
		}
	}
	n := copy(p, f.text)
	f.text = f.text[n:]
	return n, nil
}

// waitLocked waits until there may be something to fetch; ended tells that the
// store is closed.
func (f *follower) waitLocked(ctx context.Context) (ended bool, err error) {
	verbs := f.fs.jobs.wait(f.verb)
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-verbs:
			stop()
		case <-waiting.Done():
		}
	}()
	gen, err := f.fs.store.WaitEvents(waiting, f.last)
	stop()
	<-done
	switch {
	case ctx.Err() != nil:
		return false, fmt.Errorf("waiting for events: %w", ctx.Err())
	case err != nil:
		return false, nil // a verb
	case gen <= f.last:
		return true, nil
	}
	if events, _ := f.fs.store.Events(f.last); len(events) == 0 {
		f.last = gen // a generation without a difference
	}
	return false, nil
}

// fetchLocked takes the events after the last one; a line with "gap" stands
// for those that are no longer kept.
func (f *follower) fetchLocked() error {
	events, gap := f.fs.store.Events(f.last)
	verbs, verbGap := f.fs.jobs.since(f.verb)
	if len(events) == 0 && len(verbs) == 0 && !gap {
		return nil
	}
	text, err := renderEvents(events, verbs, gap, verbGap)
	if err != nil {
		return err
	}
	f.text = text
	switch {
	case len(events) > 0:
		f.last = events[len(events)-1].Generation
	case gap:
		f.last = 0 // that was of an earlier mount; this one has nothing yet
	}
	if len(verbs) > 0 {
		f.verb = verbs[len(verbs)-1].seq
	}
	return nil
}

func (f *follower) size() (int64, bool) { return 0, false }
func (f *follower) close() error        { return nil }

func sortStrings(list []string) { slices.Sort(list) }
