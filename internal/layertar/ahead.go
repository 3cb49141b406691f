package layertar

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"sync"

	"github.com/plyfs/plyfs/internal/unix"
)

// fork is the user of a part of a walk that a second goroutine makes ahead of
// the walk's. yield is called there: an error of it means that the part is to be
// walked again. join is called by the walk's goroutine, when all that comes
// before was yielded, with what yield has kept; drop instead of it, to forget it.
type fork struct {
	yield func(*event) error
	join  func() error
	drop  func()
}

// The bounds of what is made ahead.
const (
	aheadRoom = 4 << 20 // bytes that are kept, of all parts
	aheadMin  = 4       // subdirectories of a listing: with less it is not worth it
	aheadMax  = 1 << 12 // names of a listing: with more they take memory
)

// errAgain says that a part must be walked by the walk's own goroutine.
var errAgain = errors.New("to be walked again")

// room is what may be kept.
type room struct {
	mu      sync.Mutex
	left    int    // bytes; guarded by mu
	scratch []byte // the second goroutine's, of firstBuf
}

// take takes n bytes (gives them, if n is negative); errAgain if there are not
// so many.
func (r *room) take(n int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n > r.left {
		return errAgain
	}
	r.left -= n
	return nil
}

// spent is how a fork counts what it keeps.
type spent struct {
	room *room
	n    int
}

func (s *spent) more(n int) error {
	err := s.room.take(n)
	if err == nil {
		s.n += n
	}
	return err
}

func (s *spent) back() {
	_ = s.room.take(-s.n) // there is room for what is given
	s.n = 0
}

// tail is the subdirectories of a listing. The walk takes them from the front,
// the second goroutine from the back.
type tail struct {
	w     *nativeWalk
	jobs  []job // in the order of their names
	at    int   // of jobs, the first that the walk has not passed; its own
	stop  context.CancelFunc
	ended chan struct{}

	mu          sync.Mutex
	front, back int // guarded by mu: nobody has taken jobs[front:back] yet
}

// job is one subdirectory. The second goroutine writes fork and err before it
// closes done, the walk's reads them after that.
type job struct {
	name string
	mark nameMark
	fork fork
	err  error
	done chan struct{}
}

// ahead starts a goroutine that walks the subdirectories at a listing's end;
// nil where that is not worth it, or one is at work. The caller calls close.
func (w *nativeWalk) ahead(path string, ls *share, low *below) *tail {
	if w.fork == nil || w.split || ls.names.n > aheadMax {
		return nil
	}
	t := &tail{w: w, ended: make(chan struct{})}
	names := ls.names // its own place in the list
	for {
		name, mark, ok := names.next()
		if !ok {
			break
		}
		if !mark.white() && mark.typ() == unix.S_IFDIR {
			t.jobs = append(t.jobs, job{name: name, mark: mark, done: make(chan struct{})})
		}
	}
	if len(t.jobs) < aheadMin || w.room.take(aheadRoom/2) != nil {
		return nil
	}
	_ = w.room.take(-aheadRoom / 2)
	t.back = len(t.jobs)
	var ctx context.Context
	ctx, t.stop = context.WithCancel(w.ctx)
	// The listing's own part and directory stay open until close; what is below
	// it opens for itself.
	second := &nativeWalk{ctx: ctx, s: w.s, ask: w.ask, all: w.all, low: w.low}
	p := *ls.p
	w.split = true
	go t.run(second, path, &p, low.again(second))
	return t
}

// close ends the goroutine and waits for it.
func (t *tail) close() {
	if t == nil {
		return
	}
	t.stop()
	<-t.ended
	t.w.split = false
}

// take returns the next job from the back, nil when there is none left.
func (t *tail) take() *job {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.front >= t.back {
		return nil
	}
	t.back--
	return &t.jobs[t.back]
}

// run is the second goroutine.
func (t *tail) run(w *nativeWalk, path string, p *part, low *below) {
	defer close(t.ended)
	ls := &share{u: w.all, p: p, typed: w.typeIsEnough}
	for j := t.take(); j != nil; j = t.take() {
		j.fork = t.w.fork(t.w.room)
		w.yield = j.fork.yield
		if j.err = w.look(path, ls, j.name, j.mark, low); j.err != nil {
			j.fork.drop()
		}
		close(j.done)
	}
	for ; low != nil; low = low.up {
		_ = low.close() // O_PATH descriptors: nothing to lose
	}
}

// join tells what the second goroutine has found under a name; false if the
// walk is to do it. Names come in their order.
func (t *tail) join(name string) (bool, error) {
	if t == nil || t.at == len(t.jobs) || t.jobs[t.at].name != name {
		return false, nil
	}
	j := &t.jobs[t.at]
	t.at++
	t.mu.Lock()
	mine := t.at <= t.back
	if mine {
		t.front = t.at
	}
	t.mu.Unlock()
	if mine {
		return false, nil
	}
	<-j.done
	if j.err != nil {
		return false, nil
	}
	return true, j.fork.join()
}

// again returns the same place, with nothing opened yet, for another walk.
func (b *below) again(w *nativeWalk) *below {
	if b == nil {
		return nil
	}
	return &below{w: w, up: b.up.again(w), name: b.name}
}

// fork keeps changes.
func (c *changes) fork(r *room) fork {
	s := spent{room: r}
	var kept []event
	return fork{
		yield: func(e *event) error {
			kept = append(kept, event{path: e.path, kind: e.kind, what: e.what, quiet: e.quiet})
			return s.more(len(e.path) + 128)
		},
		join: func() error {
			s.back()
			for i := range kept {
				if err := c.event(&kept[i]); err != nil {
					return err
				}
			}
			return nil
		},
		drop: s.back,
	}
}

// fork keeps a sum, and what may have been counted under another name.
func (c *sizes) fork(r *room) fork {
	s := spent{room: r}
	var total int64
	var kept []uentry
	return fork{
		yield: func(e *event) error {
			if e.what != present || e.ent.st.IsDir() {
				return nil
			}
			if e.ent.st.Nlink > 1 {
				kept = append(kept, uentry{st: e.ent.st})
				return s.more(512)
			}
			total += int64(e.ent.st.Size)
			return nil
		},
		join: func() error {
			s.back()
			c.total += total
			for i := range kept {
				if err := c.event(&event{what: present, ent: &kept[i]}); err != nil {
					return err
				}
			}
			return nil
		},
		drop: s.back,
	}
}

// fork keeps the members' bytes. Which of a file's names is the first is the
// walk's own goroutine's to say.
func (g *generator) fork(r *room) fork {
	out := &keptBytes{spent: spent{room: r}}
	out.Grow(4 << 10)
	part := &generator{s: g.s, tw: tar.NewWriter(out), buf: r.scratch, part: true}
	return fork{
		yield: part.event,
		join: func() error {
			out.spent.back()
			// What was written is whole members; the last one's padding comes before
			// the next one on either side.
			if err := errors.Join(part.tw.Flush(), g.tw.Flush()); err != nil {
				return err
			}
			_, err := g.out.Write(out.Bytes())
			return err
		},
		drop: out.spent.back,
	}
}

// keptBytes is a buffer that takes no more than there is room for.
type keptBytes struct {
	bytes.Buffer
	spent spent
}

func (k *keptBytes) Write(b []byte) (int, error) {
	if err := k.spent.more(len(b)); err != nil {
		return 0, err
	}
	return k.Buffer.Write(b)
}
