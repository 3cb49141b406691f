package store

import (
	"context"
	"encoding/json"
	"slices"
	"sync"

	"github.com/plyfs/plyfs/internal/errno"
)

// eventRing is how many events are kept for those who ask later.
const eventRing = 4096

// hub brings news of states to subscribers, and then into the ring that
// Events reads. One goroutine does it, in the order of the states.
//
// mu is a leaf: nothing is called and nothing else locked under it.
type hub struct {
	mu      sync.Mutex
	waiting []news        // guarded by mu: states not yet told to everyone
	queued  int           // guarded by mu: events in waiting
	subs    []*subscriber // guarded by mu
	ring    []Event       // guarded by mu: oldest first, at most eventRing
	visible uint64        // guarded by mu: the newest generation in the ring
	loaded  uint64        // guarded by mu: the newest generation told of
	first   uint64        // guarded by mu: the generation of the opening
	lost    uint64        // guarded by mu: the newest generation dropped from the ring
	moved   chan struct{} // guarded by mu: closed when visible grows, then replaced
	ended   bool          // guarded by mu

	wake chan struct{} // has room for one: there may be news
	done chan struct{} // closed when the goroutine has ended
}

// news is one state's difference from the one before.
type news struct {
	gen    uint64
	events []Event
	lossy  bool // events were dropped
}

type subscriber struct{ fn func(uint64) }

func newHub() *hub {
	h := &hub{moved: make(chan struct{}), wake: make(chan struct{}, 1), done: make(chan struct{})}
	go h.run()
	return h
}

// tell queues the news of generation gen. It never waits. When subscribers
// are so slow that more than a ring of events waits, the oldest are dropped,
// which Events then reports as a gap.
func (h *hub) tell(gen uint64, events []Event) {
	for i := range events {
		events[i].Generation = gen
	}
	h.mu.Lock()
	h.loaded = gen
	if h.first == 0 {
		h.first = gen
	}
	n := news{gen: gen, events: events}
	h.queued += len(events)
	if len(h.waiting) >= eventRing || h.queued > 2*eventRing {
		for i := range h.waiting {
			h.queued -= len(h.waiting[i].events)
		}
		h.waiting = h.waiting[:0]
		n.lossy = true
	}
	h.waiting = append(h.waiting, n)
	h.mu.Unlock()
	h.poke()
}

func (h *hub) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *hub) run() {
	defer close(h.done)
	for {
		n, subs, ok, ended := h.next()
		if !ok {
			if ended {
				return
			}
			<-h.wake
			continue
		}
		for _, s := range subs {
			s.fn(n.gen)
		}
		h.show(n)
	}
}

func (h *hub) next() (n news, subs []*subscriber, ok, ended bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waiting) == 0 {
		return news{}, nil, false, h.ended
	}
	n = h.waiting[0]
	h.waiting = slices.Delete(h.waiting, 0, 1)
	h.queued -= len(n.events)
	return n, slices.Clone(h.subs), true, h.ended
}

// show puts events into the ring and lets them be seen.
func (h *hub) show(n news) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n.lossy {
		h.lost = n.gen - 1
	}
	h.ring = append(h.ring, n.events...)
	if over := len(h.ring) - eventRing; over > 0 {
		h.lost = max(h.lost, h.ring[over-1].Generation)
		h.ring = slices.Delete(h.ring, 0, over)
	}
	h.visible = n.gen
	close(h.moved)
	h.moved = make(chan struct{})
}

// close tells what still waits, and ends the goroutine.
func (h *hub) close() {
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	h.poke()
	<-h.done
	h.mu.Lock()
	close(h.moved) // whoever waits wakes and sees the end
	h.moved = make(chan struct{})
	h.mu.Unlock()
}

func (h *hub) since(gen uint64) ([]Event, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if gen > h.loaded { // shown by an earlier opening, whose clock was ahead, or by none
		return slices.Clone(h.ring), true
	}
	from, _ := slices.BinarySearchFunc(h.ring, gen, func(e Event, gen uint64) int {
		if e.Generation <= gen {
			return -1
		}
		return 1
	})
	return slices.Clone(h.ring[from:]), gen < h.lost || gen > 0 && gen < h.first
}

// wait returns when generation gen is visible, with the visible one; or when
// ctx or the hub ends.
func (h *hub) wait(ctx context.Context, gen uint64) (uint64, error) {
	for {
		h.mu.Lock()
		visible, moved, ended := h.visible, h.moved, h.ended
		h.mu.Unlock()
		if visible >= gen || ended {
			return visible, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return visible, ctx.Err()
		}
	}
}

func (h *hub) subscribe(fn func(uint64)) (cancel func()) {
	s := &subscriber{fn}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs = append(h.subs, s)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.subs = slices.DeleteFunc(h.subs, func(o *subscriber) bool { return o == s })
	}
}

// Events returns the events of generations after since, oldest first, as far
// as they are visible. gap tells that some of them are no longer kept, or are not
// known here: those between a generation of an earlier opening and this one.
func (s *Store) Events(since uint64) (events []Event, gap bool) { return s.events.since(since) }

// WaitEvents waits until a generation after since is visible in Events, and
// returns the newest visible one. It returns early, without error, when the
// store is closed; ctx's error when that ends first.
func (s *Store) WaitEvents(ctx context.Context, since uint64) (uint64, error) {
	return s.events.wait(ctx, since+1)
}

// Settle waits until everything loaded so far is visible in Events: every
// subscriber has been called for it.
func (s *Store) Settle(ctx context.Context) error {
	s.events.mu.Lock()
	loaded := s.events.loaded
	s.events.mu.Unlock()
	_, err := s.events.wait(ctx, loaded)
	return err
}

// Subscribe has fn called with the generation of every new state: after it is
// loaded (View shows it) and before Events shows it. Calls come from one
// goroutine, in order, under no lock: fn may use the store, but what is told
// after it waits for it. A call that has begun may outlast cancel. fn must
// not call Close or Settle.
func (s *Store) Subscribe(fn func(gen uint64)) (cancel func()) { return s.events.subscribe(fn) }

// MarshalText writes the kind's name.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (k *Kind) UnmarshalText(text []byte) error {
	for known := range Kind(numKinds) {
		if string(text) == known.String() {
			*k = known
			return nil
		}
	}
	return errno.New(errno.ErrBadValue, "%q is no kind; it is one of layer, image, container", text)
}

// String returns the event as one line of JSON, without the line feed.
func (e Event) String() string {
	text, err := json.Marshal(e)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
