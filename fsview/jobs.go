package fsview

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

const (
	// jobLines is how many ended verbs progress remembers.
	jobLines = 32
	// jobFindings is how many lines a verb can leave in progress.
	jobFindings = 1000
	// jobEvents is how many lines about verbs events keeps.
	jobEvents = 256
)

// job is one long verb of the store, running or ended.
type job struct {
	jobs  *jobs
	verb  string // with its word: "check-full"
	kind  string // of the object that it is about; "store": all of it
	id    string // of the object
	began time.Time

	ended    time.Time // zero while it runs; guarded by jobs.mu
	err      error     // guarded by jobs.mu
	now      string    // where it is, then what it did; guarded by jobs.mu
	findings []string  // guarded by jobs.mu
	more     int       // findings that were not kept; guarded by jobs.mu
}

// jobs are the long verbs of a control tree. They end with the tree.
type jobs struct {
	mu      sync.Mutex
	running []*job        // guarded by mu
	over    []*job        // oldest first, at most jobLines; guarded by mu
	events  []jobEvent    // oldest first, at most jobEvents; guarded by mu
	told    uint64        // events so far; guarded by mu
	moved   chan struct{} // closed when told grows, then replaced; guarded by mu
	changed time.Time     // guarded by mu
}

// jobEvent is the beginning or the end of a verb.
type jobEvent struct {
	seq  uint64
	gen  uint64
	when time.Time
	kind string
	id   string
	op   string
	text string
}

// run carries fn out as the verb, one of its name at a time, but for imports.
func (f *FS) run(verb string, fn func(j *job) error) error {
	return f.runOn("store", "", verb, fn)
}

// runOn is run for a verb about one object, of a kind.
func (f *FS) runOn(kind, id, verb string, fn func(j *job) error) error {
	name, _, _ := strings.Cut(verb, "-")
	j := &job{jobs: &f.jobs, verb: verb, kind: kind, id: id, began: time.Now()}
	gen := f.generation()
	f.jobs.mu.Lock()
	for _, o := range f.jobs.running {
		if other, _, _ := strings.Cut(o.verb, "-"); other == name && name != "import" {
			f.jobs.mu.Unlock()
			return errno.New(errno.ErrInUse, "%s is running since %s: wait for it (cat progress), or interrupt who started it", o.verb, stamp(o.began))
		}
	}
	f.jobs.running = append(f.jobs.running, j)
	f.jobs.tellLocked(jobEvent{gen: gen, when: j.began, kind: kind, id: id, op: verb, text: "running"})
	f.jobs.mu.Unlock()
	err := fn(j)
	gen = f.generation()
	f.jobs.mu.Lock()
	defer f.jobs.mu.Unlock()
	f.jobs.endLocked(j, err, gen)
	return err
}

// generation is the newest one that events shows: a line about a verb must not
// name one that the kernel was not told of yet.
func (f *FS) generation() uint64 {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	gen, _ := f.store.WaitEvents(over, math.MaxUint64-1) // the error is that it does not wait
	return gen
}

func (s *jobs) endLocked(j *job, err error, gen uint64) {
	j.ended, j.err = time.Now(), err
	for i, o := range s.running {
		if o == j {
			s.running = append(s.running[:i:i], s.running[i+1:]...)
			break
		}
	}
	if s.over = append(s.over, j); len(s.over) > jobLines {
		s.over = append(s.over[:0:0], s.over[1:]...)
	}
	s.tellLocked(jobEvent{gen: gen, when: j.ended, kind: j.kind, id: j.id, op: j.verb, text: j.stateLocked()})
}

func (s *jobs) tellLocked(e jobEvent) {
	s.told++
	e.seq = s.told
	if s.events = append(s.events, e); len(s.events) > jobEvents {
		s.events = append(s.events[:0:0], s.events[1:]...)
	}
	s.changed = e.when
	if s.moved != nil {
		close(s.moved)
		s.moved = nil
	}
}

// since returns the events after the seq-th, and whether some are no longer
// kept.
func (s *jobs) since(seq uint64) (list []jobEvent, gap bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.seq > seq {
			list = append(list, e)
		}
	}
	return list, s.told > seq && uint64(len(list)) < s.told-seq
}

// wait returns a channel that is closed when there are events after the
// seq-th.
func (s *jobs) wait(seq uint64) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told > seq {
		now := make(chan struct{})
		close(now)
		return now
	}
	if s.moved == nil {
		s.moved = make(chan struct{})
	}
	return s.moved
}

// before returns the last event of a generation before gen.
func (s *jobs) before(gen uint64) (seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.gen < gen {
			seq = e.seq
		}
	}
	return seq
}

// at says where the verb is.
func (j *job) at(format string, args ...any) {
	text := oneLine(fmt.Sprintf(format, args...))
	j.jobs.mu.Lock()
	defer j.jobs.mu.Unlock()
	j.now, j.jobs.changed = text, time.Now()
}

// steps says where the verb is as a count of what is named.
func (j *job) steps(what string) store.Progress {
	return func(done, all int) { j.at("%s %d of %d", what, done+1, all) }
}

// found keeps a line for whoever reads progress.
func (j *job) found(text string) {
	j.jobs.mu.Lock()
	defer j.jobs.mu.Unlock()
	if len(j.findings) >= jobFindings {
		j.more++
		return
	}
	j.findings = append(j.findings, oneLine(text))
}

func (j *job) stateLocked() string {
	switch {
	case j.ended.IsZero():
		return "running"
	case j.err == nil:
		return "done"
	case errors.Is(j.err, context.Canceled):
		return "interrupted"
	}
	return "failed"
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// text is what progress shows: the verbs that run, then those that ended, the
// last first, and what the last of each verb found.
func (s *jobs) text() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	shown := map[string]bool{}
	write := func(j *job) {
		when, now := j.began, j.now
		if !j.ended.IsZero() {
			when = j.ended
		}
		if j.err != nil {
			now = oneLine(j.err.Error())
		}
		fmt.Fprintf(&b, "%s %s %s %s\n", j.verb, j.stateLocked(), stamp(when), now)
		if shown[j.verb] {
			return
		}
		shown[j.verb] = true
		for _, f := range j.findings {
			fmt.Fprintf(&b, "finding %s\n", f)
		}
		if j.more > 0 {
			fmt.Fprintf(&b, "findings-more %d\n", j.more)
		}
	}
	for _, j := range s.running {
		write(j)
	}
	for i := len(s.over) - 1; i >= 0; i-- {
		write(s.over[i])
	}
	return []byte(b.String())
}

// names are the verbs that run.
func (s *jobs) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, j := range s.running {
		list = append(list, j.verb)
	}
	return list
}

func (s *jobs) modified() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}
