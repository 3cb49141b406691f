package fsview

import (
	"bytes"
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
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, e := range events {
		err := enc.Encode(eventLine{e.Generation, e.Time.UTC(), e.Kind.String(), e.Op, e.ID, e.Names, e.Fields})
		if err != nil {
			return nil, fmt.Errorf("encoding an event: %w", err)
		}
	}
	c.gen, c.n, c.text = last, len(events), b.Bytes()
	return c.text, nil
}

func sortStrings(list []string) { slices.Sort(list) }
