package fuseoverlay

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"
)

// trash is what was taken out of the union in one step and lies in work: removed
// directories, in which there are whiteouts. Each of these is a call of its own, which
// nobody has to wait for: one goroutine makes them, on another processor, while the
// program goes on. What it has not done is bounded, done before the mount ends, and
// swept by the next one after a kill. It takes room: so whoever asks how much there is,
// and who finds none, waits for what was there then.
type trash struct {
	mu      sync.Mutex
	todo    []string      // staged names, oldest first; guarded by mu, as all below
	thrown  uint64        // how many ever came into todo
	gone    uint64        // how many of those, the first ones, are done with
	busy    bool          // with one that is in todo no more
	working bool          // there is a goroutine
	ended   bool          // nothing is left for later any more
	next    chan struct{} // closed when gone grows; nil: nobody waits
	kick    chan struct{} // wakes the goroutine; of length 1

	done sync.WaitGroup
	// before, where a test sets it, is called before each removal.
	before func()
}

const (
	// mostTrash is how many directories may wait; who removes more does it himself.
	mostTrash = 64
	// trashLingers is how long the goroutine looks for more before it ends, trashPause
	// how often: to wake it for each costs more than what it does.
	trashLingers = 20 * time.Millisecond
	trashPause   = time.Millisecond
	// statfsWaits is how long at most who asks for the room there is waits for it.
	statfsWaits = 5 * time.Second
)

func (t *trash) prepare() { t.kick = make(chan struct{}, 1) }

// throw is discard of a directory, later. The caller holds no lock.
func (o *Overlay) throw(staged string) {
	if staged == "" {
		return
	}
	t := &o.trash
	t.mu.Lock()
	if t.ended || len(t.todo) >= mostTrash || o.pass != nil { // there the kernel itself may find no room
		t.mu.Unlock()
		o.discard(staged)
		return
	}
	defer t.mu.Unlock()
	t.todo = append(t.todo, staged)
	t.thrown++
	if !t.working {
		t.working = true
		t.done.Add(1)
		go o.emptyTrash()
	}
}

// takes tells whether what is thrown away now is removed by another.
func (t *trash) takes() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.ended && len(t.todo) < mostTrash
}

// emptyTrash removes what is thrown away until there is no more.
func (o *Overlay) emptyTrash() {
	t := &o.trash
	defer t.done.Done()
	timer := time.NewTimer(trashPause)
	defer timer.Stop()
	for idle := time.Duration(0); ; {
		next, more := t.take(idle < trashLingers)
		switch {
		case next != "":
			o.removeTrash(next)
			idle = 0
		case !more:
			return
		default:
			timer.Reset(trashPause)
			select {
			case <-timer.C:
				idle += trashPause
			case <-t.kick:
			}
		}
	}
}

// removeTrash removes one.
func (o *Overlay) removeTrash(staged string) {
	defer func() {
		if p := recover(); p != nil {
			_ = o.panicked(p)
		}
	}()
	o.trash.mu.Lock()
	before := o.trash.before
	o.trash.mu.Unlock()
	if before != nil {
		before()
	}
	o.stays(staged, o.work.removeFull(staged))
}

// take says that the last one is done with, and takes the next one; "" for none: then
// more tells whether to look again.
func (t *trash) take(linger bool) (staged string, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy {
		t.gone++
		if t.next != nil {
			close(t.next)
			t.next = nil
		}
	}
	if t.busy = len(t.todo) > 0; t.busy {
		staged, t.todo = t.todo[0], t.todo[1:]
		return staged, true
	}
	t.todo = nil
	t.working = linger && !t.ended
	return "", t.working
}

// emptied waits until what has been thrown away by now is removed, not for what comes
// later, and tells whether there was anything. The error is that of a caller who waits
// no longer. The caller holds no lock.
func (t *trash) emptied(ctx context.Context) (some bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for all := t.thrown; t.gone < all; some = true {
		if t.next == nil {
			t.next = make(chan struct{})
		}
		next := t.next
		t.mu.Unlock()
		t.wake()
		err = await(ctx, next)
		t.mu.Lock()
		if err != nil {
			return true, err
		}
	}
	return some, nil
}

// wake has the goroutine look at once.
func (t *trash) wake() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// end has everything be removed that is left, and nothing be left any more; done
// tells when.
func (t *trash) end() {
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	t.wake()
}

// noRoom tells whether err says that there is no room.
func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// madeRoom tells whether what failed with err is to be tried once more: there was no
// room, and what was thrown away or removed, and is gone now, or was made or copied ahead,
// has taken some. The caller holds no lock.
func (o *Overlay) madeRoom(ctx context.Context, err error) bool {
	if !noRoom(err) {
		return false
	}
	spared, early := o.spares.drop(), o.earlyCopies.dropAll()
	removed := o.forgotten(ctx)
	some, err := o.trash.emptied(ctx)
	return (some || spared || early || removed) && err == nil
}
