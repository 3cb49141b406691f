package fuseoverlay

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// spares are files for copies that take no data, made before they are asked for: who
// rewrites a lower file (O_TRUNC) does so with many, often, and waits each time for
// a file to be made. They have no name and nothing in them: a kill leaves nothing of
// them. Those that nobody takes for a while, or that somebody needs the room of, are
// closed.
type spares struct {
	mu    sync.Mutex
	ended bool // guarded by mu, as all below
	most  int  // how many there may be
	// pause is what ends a row, and waits how long they are kept when nobody takes any.
	pause, waits time.Duration
	row          int       // how many were, one soon after the other
	last         time.Time // when that was
	files        []spare
	// making: somebody makes them; more is how many still.
	making bool
	more   int
	taken  uint64
	timer  *time.Timer // closes what nobody wants
}

// spare is a file without a name, as it was made.
type spare struct {
	r    *safefs.Ref
	made safefs.Stat
}

const (
	// spareRow is how many copies without data, each within sparePause of the last, have
	// files made ahead, spareMost at most.
	spareRow, spareMost = 8, 32
	sparePause          = 100 * time.Millisecond
	spareWaits          = time.Second
)

// prepare makes it ready; at most most are made.
func (s *spares) prepare(most int) {
	s.most, s.pause, s.waits = min(spareMost, most), sparePause, spareWaits
}

// takeSpare returns a file for p's copy if there is one, and has more made. Its mode and
// times are of when it was made: dress sets them.
func (o *Overlay) takeSpare(p *copyPlan) *spare {
	// Where what the upper holds is counted, nothing is made that nobody asked for.
	if !p.cut || p.size != 0 || !o.work.unnamed || o.quota != nil || o.keepsAside(unix.S_IFREG) {
		return nil
	}
	f, work := o.spares.take(time.Now(), &o.earlyCopies.working)
	if work {
		go o.makeSpares(stagedMode(p))
	}
	return f
}

// take takes one, whose mode may be another than is wanted, and tells whether somebody
// is to make some, whom working then counts.
func (s *spares) take(now time.Time, working *sync.WaitGroup) (f *spare, work bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.last) > s.pause {
		s.row = 0
	}
	s.last = now
	s.row++
	if s.row < spareRow || s.ended {
		return nil, false
	}
	if k := len(s.files); k > 0 {
		last := s.files[k-1] // a copy: its place is taken by others
		f, s.files = &last, s.files[:k-1]
		s.taken++
	}
	if s.making || len(s.files) > s.most/2 || s.most == 0 {
		return f, false
	}
	s.making, s.more = true, s.most-len(s.files)
	if s.timer == nil {
		s.timer = time.AfterFunc(s.waits, func() { s.drop() })
	} else {
		s.timer.Reset(s.waits)
	}
	working.Add(1)
	return f, true
}

// makeSpares makes what is missing, with the mode that they are likely to need.
func (o *Overlay) makeSpares(mode uint32) {
	defer o.earlyCopies.working.Done()
	defer o.spares.made()
	defer func() {
		if p := recover(); p != nil {
			_ = o.panicked(p)
		}
	}()
	for goOn := true; goOn; {
		r, err := o.work.stage.OpenTemp(mode)
		if err != nil {
			return // who asks for a copy finds out why
		}
		st, err := r.Stat()
		if err != nil {
			_ = r.Close() // nothing is in it
			return
		}
		goOn = o.spares.add(spare{r, st})
	}
}

// add puts f to the others, and tells whether more are missing.
func (s *spares) add(f spare) bool {
	s.mu.Lock()
	wanted := s.more > 0
	if wanted {
		s.files = append(s.files, f)
		s.more--
	}
	goOn := s.more > 0
	s.mu.Unlock()
	if !wanted {
		closeSpares([]spare{f})
	}
	return goOn
}

// made says that nobody makes any more.
func (s *spares) made() {
	s.mu.Lock()
	s.making, s.more = false, 0
	s.mu.Unlock()
}

// drop closes all that there are, and tells whether there were any: what they take
// is free again. A new row is needed for others.
func (s *spares) drop() bool {
	s.mu.Lock()
	dead := s.clearLocked()
	s.mu.Unlock()
	closeSpares(dead)
	return len(dead) > 0
}

// clearLocked returns all that there are, which are to be closed.
func (s *spares) clearLocked() (dead []spare) {
	dead, s.files, s.more, s.row = s.files, nil, 0, 0
	return dead
}

// closeSpares closes files, without a lock: their filesystem may be slow.
func closeSpares(files []spare) {
	for _, f := range files {
		_ = f.r.Close() // nothing is in it
	}
}

// stop ends it.
func (s *spares) stop() {
	s.mu.Lock()
	s.ended = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.drop()
}
