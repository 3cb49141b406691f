package fusewire

import (
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

const (
	// streamLeast large READs of one thread in a row have one reader answer alone,
	// if they come quickly.
	streamLeast = 16
	// streamUnit is how much data counts as one request for the guard.
	streamUnit = 1 << 14
	// lookTime is how long the only reader looks whether more is asked before it
	// sleeps, lookPause for how many READs it does not look, at most, when that was in vain.
	lookTime, lookPause = 50 * time.Microsecond, 63
)

// streamRow is a row of large READs that may have one reader answer alone.
type streamRow struct {
	reads atomic.Int32
	since atomic.Int64
}

// inStream comes before a large READ that was read apart, from another thread than
// the request before if turn. It makes r the only reader when that completes a row.
func (s *Server) inStream(r *reader, turn bool) {
	c := &s.crowd
	if !c.able || c.alone.Load() != nil {
		return
	}
	if turn {
		c.stream.reads.Store(0)
		return
	}
	now := s.talk.now()
	switch c.stream.reads.Add(1) {
	case 1:
		c.stream.since.Store(now)
	case streamLeast:
		c.stream.reads.Store(0)
		if now-c.stream.since.Load() <= int64(c.within) {
			s.readAlone(r, now)
		}
	}
}

// answerLarge answers a large READ, for the only reader, and looks for the next. For
// the guard it is as much work as requests of many programs.
func (s *Server) answerLarge(r *reader, n int) {
	c, weight := &s.crowd, uint64((*fuse.ReadIn)(unsafe.Pointer(&r.in[0])).Size/streamUnit)
	c.turns.Add(weight)
	c.begun.Add(weight)
	s.handle(r, n)
	c.ended.Add(weight)
	s.lookOut(r)
}

// lookOut waits for the next request for a moment, awake, unless that was in vain
// the last times.
func (s *Server) lookOut(r *reader) {
	if r.rest > 0 {
		r.rest--
		return
	}
	for began := time.Now(); !s.pending(r.fd); {
		if time.Since(began) > lookTime {
			r.vain = min(2*r.vain+1, lookPause)
			r.rest = r.vain
			return
		}
	}
	r.vain = 0
}
