package fusewire

import "time"

const (
	// tick is how often the guard looks.
	tick = 10 * time.Millisecond
	// few is how many answers in a tick are few.
	few = 32
	// A pause after a dialogue that ended badly is twice as long as the one before:
	// up to pauseCrowd when others asked, up to pauseLifted when the talker did not
	// get its processor. Where it cannot be lifted it may need seconds for the
	// request in hand; that pause is pauseHelpless at least, up to pauseLongest.
	pauseFirst    = 50 * time.Millisecond
	pauseCrowd    = 400 * time.Millisecond
	pauseLifted   = 10 * time.Second
	pauseHelpless = time.Second
	pauseLongest  = time.Minute
	// healthy is how long a dialogue lasts that ends the doubling of pauses.
	healthy = 200 * time.Millisecond
)

// verdict is why a dialogue is to end.
type verdict int

const (
	quiet   verdict = iota // nothing is asked
	crowd                  // others ask too
	slow                   // a request takes long
	starved                // the talker does not get its processor
)

// guard calls the talker, watches the dialogue and ends it.
func (s *Server) guard() {
	defer s.loops.Done()
	t := &s.talk
	begun := time.Now()
	t.turn <- struct{}{} // has room: the talker was parked
	w := s.watch()
	if !t.phase.CompareAndSwap(called, ended) {
		t.phase.CompareAndSwap(on, ended)
	}
	s.ensure()
	t.rest(w, time.Since(begun))
	if t.phase.Load() != parked {
		t.lift()
	}
	t.looker.forget()
	t.guarding.Store(false)
}

// rest sets how long there is no dialogue.
func (t *talk) rest(w verdict, lasted time.Duration) {
	if lasted > healthy && w != starved {
		t.pause = pauseFirst
	}
	longest := pauseCrowd
	switch {
	case w == quiet:
		return
	case w == starved && t.lifts.Load():
		t.starved.Add(1)
		longest = pauseLifted
	case w == starved:
		t.starved.Add(1)
		t.pause, longest = max(t.pause, pauseHelpless), pauseLongest
	}
	t.quiet.Store(t.now() + int64(t.pause))
	if t.pause < longest {
		t.pause = min(2*t.pause, longest)
	}
}

// lift gives the talker back what other threads have, as far as that is allowed:
// its processors always, its policy only with CAP_SYS_NICE or RLIMIT_NICE.
func (t *talk) lift() {
	tid := int(t.tid.Load())
	if tid == 0 {
		return
	}
	_ = setNormal(tid) // refused: it stays as it is until it has parked
	bindAll(tid, &t.all)
}

// watch returns when the dialogue is to end, and why.
func (s *Server) watch() verdict {
	t := &s.talk
	still := 0
	var meter meter
	defer meter.close()
	meter.delay(int(t.tid.Load()))
	at, began, done := time.Now(), t.begun.Load(), t.ended.Load()
	for {
		time.Sleep(tick) // and is scheduled: see "The runtime's monitor"
		if s.dead.Load() {
			return quiet
		}
		switch t.phase.Load() {
		case called:
			return starved
		case parked:
			return quiet // it could not come
		}
		if t.score.Load() >= strangeMax {
			return crowd
		}
		delay := meter.delay(int(t.tid.Load()))
		now, b, d := time.Now(), t.begun.Load(), t.ended.Load()
		busy := b != d || s.pending(s.twin)
		switch {
		case d-done < few && busy && delay > now.Sub(at)/2:
			return starved
		case b == began && b != d:
			return slow
		case d == done && !busy:
			if still++; still == 2 {
				return quiet
			}
		default:
			still = 0
		}
		at, began, done = now, b, d
	}
}
