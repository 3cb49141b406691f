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
// the walk's. event is called there: an error of it means that the part is to be
// walked again. join is called by the walk's goroutine, when all that comes
// before was yielded, with what event has kept; drop instead of it, to forget it.
type fork interface {
	event(*event) error
	join() error
	drop()
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
	some        sync.Cond // made is less than before
	front, back int       // guarded by mu: nobody has taken jobs[front:back] yet
	made        int       // guarded by mu: jobs[made:] are done
}

// job is one subdirectory. The second goroutine writes fork and err before it
// says that it is done, the walk's reads them after that.
type job struct {
	path string // its name is behind the last slash
	fork fork
	err  error
}

// isJob tells whether a name of a listing is one of its subdirectories.
func isJob(mark nameMark) bool { return !mark.white() && mark.typ() == unix.S_IFDIR }

// ahead starts a goroutine that walks the subdirectories at a listing's end;
// nil where that is not worth it, or one is at work. The caller calls close.
func (w *nativeWalk) ahead(path string, ls *share, low *below) *tail {
	if w.fork == nil || w.split || ls.names.n > aheadMax {
		return nil
	}
	names, n := ls.names, 0 // its own place in the list
	for names.last = nil; names.next(); {
		if isJob(names.mark) {
			n++
		}
	}
	if n < aheadMin || w.room.take(aheadRoom/2) != nil {
		return nil
	}
	_ = w.room.take(-aheadRoom / 2)
	t := &tail{w: w, jobs: make([]job, 0, n), back: n, made: n, ended: make(chan struct{})}
	t.some.L = &t.mu
	names = ls.names
	for names.last = nil; names.next(); {
		if isJob(names.mark) {
			t.jobs = append(t.jobs, job{path: joinBytes(path, names.last)})
		}
	}
	var ctx context.Context
	ctx, t.stop = context.WithCancel(w.ctx)
	// The listing's own part and directory stay open until close; what is below
	// it opens for itself.
	second := newNativeWalk(ctx, w.s, w.ask, w.all, w.low)
	p := *ls.p
	w.split = true
	go t.run(second, &p, low.again(second))
	return t
}

// close ends the goroutine and waits for it.
func (t *tail) close() {
	if t == nil {
		return
	}
	t.stop()
	t.mu.Lock()
	t.front = t.back
	t.mu.Unlock()
	<-t.ended
	t.w.split = false
}

// take returns the next job from the back, after the one before is done; -1 when
// there is none left.
func (t *tail) take() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.made = t.back
	t.some.Signal()
	if t.front >= t.back {
		return -1
	}
	t.back--
	return t.back
}

// run is the second goroutine.
func (t *tail) run(w *nativeWalk, p *part, low *below) {
	defer close(t.ended)
	ls := &share{u: w.all, p: p, typed: w.typed}
	for i := t.take(); i >= 0; i = t.take() {
		j := &t.jobs[i]
		j.fork = t.w.fork(t.w.room)
		w.yield = j.fork.event
		_, name := splitName(j.path)
		if j.err = w.look(j.path, name, ls, markOf(unix.S_IFDIR, false), low); j.err != nil {
			j.fork.drop()
		}
	}
	for ; low != nil; low = low.up {
		_ = low.close() // O_PATH descriptors: nothing to lose
	}
}

// join tells what the second goroutine has found under the listing's next name;
// false if the walk is to do it.
func (t *tail) join(mark nameMark) (bool, error) {
	if t == nil || !isJob(mark) {
		return false, nil
	}
	j := &t.jobs[t.at]
	if t.mine() || j.err != nil {
		return false, nil
	}
	return true, j.fork.join()
}

// mine passes a job: true if the walk is to do it, else it is done.
func (t *tail) mine() bool {
	i := t.at
	t.at++
	t.mu.Lock()
	defer t.mu.Unlock()
	if i < t.back {
		t.front = t.at
		return true
	}
	for t.made > i {
		t.some.Wait()
	}
	return false
}

// again returns the same place, with nothing opened yet, for another walk.
func (b *below) again(w *nativeWalk) *below {
	if b == nil {
		return nil
	}
	return &below{w: w, up: b.up.again(w), name: b.name}
}

// fork keeps changes.
func (c *changes) fork(r *room) fork { return &changesPart{whole: c, spent: spent{room: r}} }

type changesPart struct {
	whole *changes
	spent spent
	kept  []keptChange
}

type keptChange struct {
	path  string
	kind  ChangeKind
	quiet bool
}

func (f *changesPart) event(e *event) error {
	if e.what == opaqueDir {
		return nil
	}
	f.kept = append(f.kept, keptChange{e.path, e.kind, e.quiet})
	return f.spent.more(len(e.path) + 64)
}

func (f *changesPart) join() error {
	f.spent.back()
	for i := range f.kept {
		if err := f.whole.take(f.kept[i].path, f.kept[i].kind, f.kept[i].quiet); err != nil {
			return err
		}
	}
	return nil
}

func (f *changesPart) drop() { f.spent.back() }

// fork keeps a sum, and what may have been counted under another name.
func (c *sizes) fork(r *room) fork { return &sizesPart{whole: c, spent: spent{room: r}} }

type sizesPart struct {
	whole *sizes
	spent spent
	total int64
	kept  []uentry
}

func (f *sizesPart) event(e *event) error {
	if e.what != present || e.ent.st.IsDir() {
		return nil
	}
	if e.ent.st.Nlink > 1 {
		f.kept = append(f.kept, uentry{st: e.ent.st})
		return f.spent.more(512)
	}
	f.total += int64(e.ent.st.Size)
	return nil
}

func (f *sizesPart) join() error {
	f.spent.back()
	f.whole.total += f.total
	for i := range f.kept {
		if err := f.whole.event(&event{what: present, ent: &f.kept[i]}); err != nil {
			return err
		}
	}
	return nil
}

func (f *sizesPart) drop() { f.spent.back() }

// fork keeps the members' bytes. Which of a file's names is the first is the
// walk's own goroutine's to say.
func (g *generator) fork(r *room) fork {
	f := &generatorPart{whole: g, out: keptBytes{spent: spent{room: r}}}
	f.out.Grow(4 << 10)
	f.generator = generator{s: g.s, tw: tar.NewWriter(&f.out), buf: r.scratch, part: true}
	return f
}

// generatorPart writes the members of a part, and has them.
type generatorPart struct {
	generator
	whole *generator
	out   keptBytes
}

// join writes whole members; the last one's padding comes before the next one on
// either side.
func (f *generatorPart) join() error {
	f.out.spent.back()
	if err := errors.Join(f.tw.Flush(), f.whole.tw.Flush()); err != nil {
		return err
	}
	_, err := f.whole.out.Write(f.out.Bytes())
	return err
}

func (f *generatorPart) drop() { f.out.spent.back() }

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
