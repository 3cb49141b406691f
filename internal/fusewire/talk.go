package fusewire

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// row is how many requests of one thread in a row begin a dialogue, if they
	// come within rowTime.
	row     = 32
	rowTime = 20 * time.Millisecond
	// settled and moved are how many waits the talker does not look where the
	// program is, after it was in its place and after it was not.
	settled, moved = 4, 2
	// breath is how long the talker runs until it lets itself be scheduled: less than
	// the 10 ms after which the runtime sees to that.
	breath = 8 * time.Millisecond
	// strange is what a request of another thread adds to the score, strangeMax
	// the score that ends a dialogue. A request of the same takes one away.
	strange, strangeMax = 4, 24
)

// Phases of the talker.
const (
	parked = iota // it waits to be called
	called        // it is to come
	on            // a dialogue: it is the reader
	ended         // it is to park
)

// talk is the talker and who it talks to. What is atomic may be one request old
// where another thread reads it.
type talk struct {
	able  atomic.Bool
	all   unix.CPUSet // where the server may run
	start time.Time

	last   atomic.Uint32 // the thread that asked last
	streak atomic.Int32  // requests in a row before
	since  atomic.Int64  // when the row began, from start
	quiet  atomic.Int64  // no dialogue before this, from start
	score  atomic.Int32  // of strangers, in a dialogue

	phase    atomic.Int32
	guarding atomic.Bool
	once     sync.Once
	started  bool          // by a reader; read once there is none
	turn     chan struct{} // calls the talker
	over     chan struct{} // closed when it is to end
	tid      atomic.Int32  // its thread
	looker   looker

	// work is held by the talker from before it reads until it has answered, or
	// nothing was there.
	work sync.Mutex
	left bool // nothing is to be read any more; guarded by work

	begun, ended   atomic.Uint64 // requests of the talker
	talks, starved atomic.Uint64 // dialogues, and those where it did not get its processor
	lifts          atomic.Bool   // whether the talker's thread may leave SCHED_IDLE again
	pause          time.Duration // the next pause; of the guard alone

	// Of the talker alone: the processor it is bound to, -1 for none, and for how
	// many waits it need not look again.
	cpu, settled int
	// scheduled is when it let itself be scheduled, from start; of the talker alone.
	scheduled int64
}

// Able tells whether there can be dialogues with a mount of these options. Where
// there cannot, there is nothing to be gained over go-fuse's server.
func Able(o *fuse.MountOptions) bool {
	var all unix.CPUSet
	return !o.SingleThreaded && runtime.GOMAXPROCS(0) > 1 && ordinary() &&
		unix.SchedGetaffinity(0, &all) == nil && all.Count() > 1 && accounted()
}

// Lifts tells whether the guard could lift a talker: give it back the policy that
// other threads have. It tries, with a thread that ends.
func Lifts() bool {
	can := make(chan bool)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		can <- setIdle(0) == nil && setNormal(0) == nil
	}()
	return <-can
}

// init tells whether there can be dialogues.
func (t *talk) init(o *fuse.MountOptions) bool {
	t.start, t.pause, t.cpu = time.Now(), pauseFirst, -1
	t.turn, t.over = make(chan struct{}, 1), make(chan struct{})
	t.looker.fd = -1
	return Able(o) && unix.SchedGetaffinity(0, &t.all) == nil
}

func (t *talk) now() int64 { return int64(time.Since(t.start)) }

// asked comes before a request that was read apart. It begins a dialogue if it
// completes a quick row of one thread, or a crowd if one of several, and no
// pause is on.
func (s *Server) asked(r *reader, n int) {
	t, tid := &s.talk, r.head().Pid
	if tid == 0 || !t.able.Load() {
		return
	}
	turn, large := t.last.Swap(tid) != tid, bulky(r)
	if large {
		s.inStream(r, turn)
	} else {
		s.inCrowd(r, turn)
	}
	if turn || large {
		t.streak.Store(0)
		t.since.Store(t.now())
		return
	}
	if t.streak.Add(1) < row {
		return
	}
	t.streak.Store(0)
	now := t.now()
	if now-t.since.Swap(now) > int64(rowTime) || now < t.quiet.Load() || t.phase.Load() != parked {
		return
	}
	if cpu, ok := t.looker.processor(tid); !ok || !t.all.IsSet(cpu) || !t.guarding.CompareAndSwap(false, true) {
		return
	}
	if !t.phase.CompareAndSwap(parked, called) {
		t.guarding.Store(false)
		return
	}
	t.once.Do(func() {
		t.started = true
		go s.talker()
	})
	s.loops.Add(1)
	go s.guard()
}

// leave has the talker end, and waits for the request that it has in hand.
func (t *talk) leave() {
	t.work.Lock()
	defer t.work.Unlock()
	t.left = true
	close(t.over)
}

// talker is a goroutine with a thread of its own, which ends with it: where it
// may not leave SCHED_IDLE, no other goroutine ever runs there. It is not counted
// in loops, since it may need long to come to its end, and closes the descriptor
// that it reads itself.
func (s *Server) talker() {
	defer func() { _ = unix.Close(s.twin) }() // nothing is written through it that could be lost
	runtime.LockOSThread()
	t := &s.talk
	t.lifts.Store(setIdle(0) == nil && setNormal(0) == nil)
	t.tid.Store(int32(unix.Gettid()))
	r := s.reader()
	r.fd = s.twin
	defer func() { s.end(r) }()
	for {
		select {
		case <-t.turn:
		case <-t.over:
			return
		}
		t.cpu, t.settled = -1, 0
		if err := setIdle(0); err != nil {
			s.opts.Logger.Printf("no dialogues: %v", err)
			t.able.Store(false)
		} else if t.phase.CompareAndSwap(called, on) {
			t.talks.Add(1)
			t.score.Store(0)
			t.follow()
			r = s.converse(r)
		}
		t.phase.Store(parked) // the guard has ended it, or does nothing any more
	}
}

// converse answers until the guard says that it is enough, and returns the
// reader to go on with.
func (s *Server) converse(r *reader) *reader {
	t := &s.talk
	for t.phase.Load() == on && !s.dead.Load() {
		next, no := s.reply(r)
		r = next
		switch no {
		case 0, syscall.EINTR, syscall.ENOENT:
		case syscall.EAGAIN: // the program is on another processor, or has nothing to ask
			if t.breathe() {
				continue // there may be something by now
			}
			t.follow()
			poll := [1]unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}}
			_, _ = unix.Poll(poll[:], -1) // whatever it says, read says more
		default:
			return r
		}
	}
	return r
}

// breathe lets the talker be scheduled, if that is due and nothing is asked: see "The
// runtime's monitor" in the package's documentation.
func (t *talk) breathe() bool {
	now := t.now()
	if now-t.scheduled < int64(breath) {
		return false
	}
	t.scheduled = now
	runtime.Gosched()
	return true
}

// reply reads a request, if one is there, and answers it, or has it answered. It
// returns the reader for the next.
func (s *Server) reply(r *reader) (*reader, syscall.Errno) {
	t := &s.talk
	t.work.Lock()
	defer t.work.Unlock()
	if t.left {
		return r, syscall.ENODEV
	}
	n, no := s.readRequest(r)
	switch no {
	case 0:
	case syscall.EAGAIN, syscall.EINTR, syscall.ENOENT:
		return r, no
	default:
		s.lost(no)
		return r, no
	}
	t.heard(r, n)
	if lengthy(r) || s.readsOnly && alters(r) || !t.lifts.Load() && s.laborious(r, n) {
		return s.handOver(r, n), 0
	}
	shorten(r)
	t.begun.Add(1)
	k := s.decode(r, n)
	t.ended.Add(1) // before the answer: the program takes the processor then
	s.answer(r, k)
	return r, 0
}

// handOver has another thread answer, and returns a reader for the next.
func (s *Server) handOver(r *reader, n int) *reader {
	next := s.reader()
	next.fd = r.fd
	s.loops.Add(1)
	go func() {
		defer s.loops.Done()
		defer s.end(r)
		s.handle(r, n)
	}()
	return next
}

// heard counts who asks in a dialogue.
func (t *talk) heard(r *reader, n int) {
	tid := r.head().Pid
	if tid == 0 {
		return
	}
	if t.last.Swap(tid) != tid || bulky(r) {
		t.score.Add(strange)
		t.settled = 0
	} else if t.score.Load() > 0 {
		t.score.Add(-1)
	}
}

// follow looks where the program is, and binds the talker there.
func (t *talk) follow() {
	if t.settled > 0 {
		t.settled--
		return
	}
	cpu, ok := t.looker.processor(t.last.Load())
	if !ok || !t.all.IsSet(cpu) {
		return
	}
	if t.settled = settled; cpu == t.cpu {
		return
	}
	t.cpu, t.settled = cpu, moved
	bind(cpu)
	if t.phase.Load() != on { // the guard may have lifted it, before bind
		bindAll(0, &t.all)
	}
}
