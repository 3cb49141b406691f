package fsview

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/plyfs/plyfs/store"
)

// eventCache keeps the text of the ring, which listings ask the size of.
type eventCache struct {
	mu   sync.Mutex
	gen  uint64 // of the last event in text; guarded by mu
	n    int    // events in text; guarded by mu
	text []byte // never changed, only replaced; guarded by mu
}

// eventLine is the form of one line of events.
type eventLine struct {
	Generation uint64    `json:"generation"`
	Time       time.Time `json:"time"`
	Kind       string    `json:"kind"`
	Op         store.Op  `json:"op"`
	ID         string    `json:"id"`
	Names      []string  `json:"names,omitempty"`
	Fields     []string  `json:"fields,omitempty"`
}

func eventsText(p place) ([]byte, error) {
	events, _ := p.fs.store.Events(0)
	return p.fs.events.render(events)
}

func (c *eventCache) render(events []store.Event) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var last uint64
	if len(events) > 0 {
		last = events[len(events)-1].Generation
	}
	if c.gen == last && c.n == len(events) {
		return c.text, nil
	}
	text, err := renderEvents(events)
	if err != nil {
		return nil, err
	}
	c.gen, c.n, c.text = last, len(events), text
	return c.text, nil
}

func renderEvents(events []store.Event) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, e := range events {
		err := enc.Encode(eventLine{e.Generation, e.Time.UTC(), e.Kind.String(), e.Op, e.ID, e.Names, e.Fields})
		if err != nil {
			return nil, fmt.Errorf("encoding an event: %w", err)
		}
	}
	return b.Bytes(), nil
}

// follower is the content of events.follow: the ring, and then every further
// event as it becomes visible. A read returns what there is, and waits only
// when there is nothing. It ends when the store is closed.
type follower struct {
	store *store.Store

	mu   sync.Mutex // guards what follows; held while a read waits
	last uint64     // generation of the last event that was fetched
	text []byte     // fetched and not yet read
}

func openFollow(_ context.Context, p place) (blob, error) {
	return &follower{store: p.fs.store}, nil
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
		gen, err := f.store.WaitEvents(ctx, f.last)
		if err != nil {
			return 0, fmt.Errorf("waiting for events: %w", err)
		}
		if gen <= f.last {
			return 0, nil // the store is closed
		}
		if events, _ := f.store.Events(f.last); len(events) == 0 {
			f.last = gen // a generation without a difference
		}
	}
	n := copy(p, f.text)
	f.text = f.text[n:]
	return n, nil
}

// fetchLocked takes the events after the last one; a line {"gap":true} stands
// for those that are no longer kept.
func (f *follower) fetchLocked() error {
	events, gap := f.store.Events(f.last)
	if len(events) == 0 {
		return nil
	}
	text, err := renderEvents(events)
	if err != nil {
		return err
	}
	if gap && f.last > 0 {
		text = append([]byte("{\"gap\":true}\n"), text...)
	}
	f.last, f.text = events[len(events)-1].Generation, text
	return nil
}

func (f *follower) size() (int64, bool) { return 0, false }
func (f *follower) close() error        { return nil }

func sortStrings(list []string) { slices.Sort(list) }
