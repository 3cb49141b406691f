package fusewire

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// crowdRow requests, of which crowdTurns came from another thread than the one
	// before, begin a crowd, if they come quickly.
	crowdRow, crowdTurns = 64, 16
	// crowdMost is for how many processors one reader is enough.
	crowdMost = 2
	// brisk is how many answers in a tick a crowd's reader has to give at least,
	// while more is asked.
	brisk = 100
	// pauseSlow is the longest pause after requests that one reader was too slow for.
	pauseSlow = 10 * time.Second
)

// crowding is what is known of many programs that ask at once, and who answers
// them: see "A crowd" in the package's documentation.
type crowding struct {
	able bool
	// within is how quickly a row must come: rowTime.
	within time.Duration
	// alone is the only reader, nil at rest. It is in its loop: who leaves that
	// takes itself away first.
	alone        atomic.Pointer[reader]
	guarding     atomic.Bool
	begun, ended atomic.Uint64 // requests of the only reader
	turns        atomic.Uint64 // requests from another thread than the one before
	crowds       atomic.Uint64
	quiet        atomic.Int64 // no crowd before this, from the talk's start

	// The row that may begin one: requests, turns when it began, and when.
	row, rowTurns atomic.Uint64
	since         atomic.Int64
	stream        streamRow

	pause time.Duration // the next pause; of the guard alone
}

// inCrowd comes before a request that was read apart, from another thread than
// the one before if turn. It makes r the only reader when that completes a row.
func (s *Server) inCrowd(r *reader, turn bool) {
	c := &s.crowd
	if !c.able || c.alone.Load() != nil {
		if turn {
			c.turns.Add(1)
		}
		return
	}
	turns := c.turns.Load()
	if turn {
		turns = c.turns.Add(1)
	}
	if c.row.Add(1) < crowdRow {
		return
	}
	c.row.Store(0)
	now, turned := s.talk.now(), turns-c.rowTurns.Swap(turns)
	if now-c.since.Swap(now) <= int64(c.within) && turned >= crowdTurns {
		s.readAlone(r, now)
	}
}

// readAlone makes r the only reader, unless there is a pause, a dialogue, or a guard
// of the last one still.
func (s *Server) readAlone(r *reader, now int64) {
	c := &s.crowd
	if now < c.quiet.Load() || s.talk.phase.Load() != parked || !c.guarding.CompareAndSwap(false, true) {
		return
	}
	c.crowds.Add(1)
	c.alone.Store(r) // nobody else does while guarding
	s.loops.Add(1)
	go s.guardCrowd()
}

// answerCrowd answers, for the only reader, and returns the reader to go on with.
func (s *Server) answerCrowd(r *reader, n int) *reader {
	if lengthy(r) {
		next := s.handOver(r, n)
		if !s.crowd.alone.CompareAndSwap(r, next) {
			s.ensure() // the guard has just ended it, and may have counted on r
		}
		return next
	}
	if bulky(r) {
		s.answerLarge(r, n)
		return r
	}
	s.crowd.begun.Add(1)
	k := s.decode(r, n)
	s.crowd.ended.Add(1)
	s.answer(r, k)
	return r
}

// guardCrowd watches the only reader, and ends that it is alone.
func (s *Server) guardCrowd() {
	defer s.loops.Done()
	c := &s.crowd
	begun := time.Now()
	slow := s.watchCrowd()
	c.alone.Store(nil)
	s.ensure()
	c.rest(slow, time.Since(begun), s.talk.now())
	c.guarding.Store(false)
}

// rest sets how long there is no crowd, at a time from the talk's start.
func (c *crowding) rest(slow bool, lasted time.Duration, now int64) {
	if lasted > healthy {
		c.pause = pauseFirst
	}
	if !slow {
		return
	}
	c.quiet.Store(now + int64(c.pause))
	c.pause = min(2*c.pause, pauseSlow)
}

// watchCrowd returns when a crowd is to end, and whether one reader was too slow
// for it.
func (s *Server) watchCrowd() (slow bool) {
	c := &s.crowd
	began, done, turns := c.begun.Load(), c.ended.Load(), c.turns.Load()
	for {
		sleep(tick)
		if s.dead.Load() || c.alone.Load() == nil {
			return false
		}
		b, d, t := c.begun.Load(), c.ended.Load(), c.turns.Load()
		busy := b != d || s.pending(s.fd)
		switch {
		case busy && d-done < brisk:
			return true
		case (t-turns)*(crowdRow/crowdTurns) < b-began || b == began:
			return false // nothing is asked, or by one at a time
		}
		began, done, turns = b, d, t
	}
}

// pending tells whether there is a request that nobody has read.
func (s *Server) pending(fd int) bool {
	poll := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll[:], 0)
	return err == nil && n > 0
}
