package fuseoverlay

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"
)

// ahead reads directories before the program that walks through the tree comes to
// them. A dialogue has that program and the server take turns on one processor; a
// goroutine (an aheadOf) on another lists directories and looks their names up,
// depth first in the order of the listings, as find, grep -r, rm -r and du go.
// What it found waits here until the directory is listed, without anybody being
// woken: it rests when it is far enough ahead, and is told when half of that is
// used up.
//
// It reads only what cannot change: directories that the upper has no part in, or
// no name (node.searched). What a search finds in those is decided by their places in lower layers alone,
// so what is found is good for whoever has exactly these places as his stack, which
// a copy-up changes; the search asks for that under the directory's lock, where it
// would ask the layers. Whatever depends on more (the index of hard links, nodes
// that are there, owners in attributes) is done when the name is taken in, as ever.
// Left out are what absences leaves out: layers that change, and the upper or the
// work directory inside a lower one.
type ahead struct {
	// How many directories make a walk, 0: none, and how long nothing is used before
	// it is given up. Set before there are requests.
	row      int
	patience time.Duration
	listed   seen // guarded by Overlay.treeMu

	mu      sync.Mutex
	found   map[*place]*foundDir // by the first of their places
	order   []*foundDir          // those in found, as the walk will come to them
	weight  int                  // of all in found
	current *foundDir            // what was taken last
	letGo   *time.Timer          // of current, after the end of its walk
	running *aheadOf             // nil: none
	ended   bool                 // none is to begin
	need    int                  // row, or more after walks that were not followed
	used    uint64               // directories that were taken
	read    uint64               // and that were found
}

// seen is how far a program's walk went.
type seen struct {
	last uint64 // the number of the directory that was listed last
	row  int    // how many came one after the other as in a walk
}

const (
	// aheadMost is how much is found at most before it is used, in names and in
	// spots of layers for them; a directory of more than half of it is left to
	// whoever lists it, and so is what comes after as many directories to be done.
	aheadMost = 4096
	// walkRow is how many directories that are listed one after the other as in a
	// walk have the next ones read ahead; four times as many each time that more
	// was read than used, up to walkRowMost.
	walkRow, walkRowMost = 4, 1024
	// ancestors is how far up the next directory of a walk may hang.
	ancestors = 64
	// forsaken is how long nothing is used before it is given up.
	forsaken = time.Second
)

// foundDir is what the layers have in a directory.
type foundDir struct {
	stack  []*place
	names  []dirName
	hits   [][]hit // of each name; nil: not known, or taken
	next   int     // from where on names were not taken
	weight int
	told   int // of how many names files was asked
}

// init decides whether anything is read ahead: there is a processor for it, and the
// kernel believes what it was told.
func (a *ahead) init(o *Overlay) {
	if o.tree.often == 0 || o.c.AttrTimeout > 0 || o.c.SingleThread || o.c.row < 0 || runtime.NumCPU() == 1 {
		return
	}
	if a.row = o.c.row; a.row == 0 {
		a.row = walkRow
	}
	if a.patience = o.c.patience; a.patience == 0 {
		a.patience = forsaken
	}
	a.need = a.row
}

// take returns what was found of dir, whose lock is held, and which is about to be
// listed; nil when nothing was.
func (a *ahead) take(dir *node) *foundDir {
	stack := dir.searched()
	if a.row == 0 || stack[0].writable() {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	stack[0].listed.Store(true)
	d := a.found[stack[0]]
	if d == nil || !slices.Equal(d.stack, stack) {
		return nil
	}
	delete(a.found, stack[0])
	if i := slices.Index(a.order, d); i == 0 {
		a.order[0], a.order = nil, a.order[1:]
	} else { // the walk leaves out the ones before
		a.order = slices.Delete(a.order, i, i+1)
	}
	a.weight -= d.weight
	a.used++
	a.current = d
	if g := a.running; g != nil {
		g.used++
		if g.resting && a.weight <= g.until {
			g.resting = false
			select {
			case g.wake <- struct{}{}:
			default: // it has not seen the one before
			}
		}
	}
	return d
}

// hits returns what was found under name in a directory of that stack, nil if that
// is not known. The directory's lock is held.
func (a *ahead) hits(stack []*place, name string) []hit {
	if a.row == 0 || stack[0].writable() {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.current
	if d == nil || !slices.Equal(d.stack, stack) {
		return nil
	}
	const skipped = 16 // names that were known before come first in a listing
	for i := d.next; i < min(d.next+skipped, len(d.names)); i++ {
		if d.names[i].name != name {
			continue
		}
		h := d.hits[i]
		if d.hits[i], d.next = nil, i+1; d.next == len(d.names) {
			a.current = nil
		}
		return h
	}
	return nil
}

// files returns up to most regular files of one name, with all of their data, of
// the directories that the walk has not come to, in its order, and each once.
func (a *ahead) files(most int) (out []spot) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.order {
		for ; d.told < len(d.hits) && len(out) < most; d.told++ {
			if h := d.hits[d.told]; len(h) == 1 && h[0].kind == regular && h[0].st.Nlink == 1 {
				out = append(out, h[0].spot)
			}
		}
		if len(out) >= most {
			break
		}
	}
	return out
}

// stop ends it. Nothing is read any more once done is closed, which may take as
// long as a layer does not answer.
func (a *ahead) stop() (done <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended, a.current = true, nil
	if a.letGo != nil {
		a.letGo.Stop()
	}
	if g := a.running; g != nil {
		g.cancel()
		return g.done
	}
	none := make(chan struct{})
	close(none)
	return none
}

// keepLastLocked keeps the directory that was taken last after the end of its walk,
// whose names may be asked for yet, but not for long.
func (a *ahead) keepLastLocked() {
	d := a.current
	if d == nil || a.ended {
		return
	}
	if a.letGo != nil {
		a.letGo.Stop()
	}
	a.letGo = time.AfterFunc(a.patience, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.current == d {
			a.current = nil
		}
	})
}

// wasListed follows the walks of programs, and has the next directories read when
// dir, which was listed to its end, is one more of a walk.
func (o *Overlay) wasListed(dir *node) {
	a := &o.ahead
	if a.row == 0 {
		return
	}
	o.treeMu.Lock()
	follows := o.followsLocked(a.listed.last, dir)
	if a.listed.last != dir.id {
		a.listed.row++
	}
	if a.listed.last = dir.id; !follows {
		a.listed.row = 0
	}
	row := a.listed.row
	o.treeMu.Unlock()
	if row < a.row {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if row < a.need || a.running != nil || a.ended {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.running = &aheadOf{o: o, a: a, ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1), done: make(chan struct{})}
	a.found = map[*place]*foundDir{}
	go a.running.run(dir)
}

// followsLocked tells whether a walk that comes from the directory with the number
// last goes to dir: it lies in last, or in a directory above that. treeMu is held.
func (o *Overlay) followsLocked(last uint64, dir *node) bool {
	n := o.table.nodes.get(last)
	if n == dir {
		return true
	}
	for i := 0; n != nil && i < ancestors; i++ {
		if n == dir.home.dir {
			return true
		}
		n = n.home.dir
	}
	return false
}

// aheadOf goes ahead of one walk.
type aheadOf struct {
	o      *Overlay
	a      *ahead
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed at its end

	wake       chan struct{}
	resting    bool // guarded by ahead.mu: wake is waited for
	until      int  // guarded by ahead.mu: the weight that ends a rest
	used, read int  // guarded by ahead.mu

	opened []*place // directories that nobody will take, to be closed
}

// run goes on after the directory dir, as a walk does: through what is in it, then
// through what comes after it in the directory above, and so on.
func (g *aheadOf) run(dir *node) {
	defer close(g.done)
	defer g.end()
	defer func() {
		if p := recover(); p != nil {
			_ = g.o.panicked(p) // nobody waits for an answer
		}
	}()
	cookie := uint64(0)
	for dir != nil {
		sub, at := g.o.directoryAfter(dir, cookie)
		if cookie = at; sub == nil {
			dir, cookie = g.o.above(dir)
		} else if !g.through(sub.searched()) {
			return
		}
	}
	g.rest(0)
}

// directoryAfter returns the next directory in dir after the cookie, of those that
// have nodes, and its cookie.
func (o *Overlay) directoryAfter(dir *node, cookie uint64) (*node, uint64) {
	var buf [batch]entry
	for {
		k := 0
		o.treeMu.Lock()
		if dir.dir.idx.complete {
			k = dir.dir.idx.after(cookie, buf[:])
		}
		o.treeMu.Unlock()
		if k == 0 {
			return nil, cookie
		}
		for i := range buf[:k] {
			cookie = buf[i].cookie
			if n := buf[i].node; n != nil && n.isDir() {
				return n, cookie
			}
		}
	}
}

// above returns the directory above dir, nil for none, and dir's cookie there.
func (o *Overlay) above(dir *node) (*node, uint64) {
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	up := dir.home.dir
	if up == nil || !up.dir.idx.complete {
		return nil, 0
	}
	e := up.dir.idx.get(dir.home.name)
	if e == nil {
		return nil, 0
	}
	return up, e.cookie
}

// through reads the directory of that stack, and all below. It returns false when
// nobody follows.
func (g *aheadOf) through(stack []*place) bool {
	if stack[0].writable() || slices.ContainsFunc(stack, (*place).besideWork) {
		return true
	}
	for todo := [][]*place{stack}; len(todo) > 0; {
		stack := todo[len(todo)-1]
		if todo = todo[:len(todo)-1]; stack[0].listed.Load() {
			continue // and who listed it is at what is below
		}
		d := g.read1(stack)
		if d == nil {
			g.leave(stack)
			continue
		}
		for _, h := range slices.Backward(d.hits) {
			if len(h) > 0 && h[0].kind == directory {
				todo = append(todo, entered(h))
			}
		}
		if len(todo) > aheadMost {
			todo = slices.Clone(todo[len(todo)-aheadMost/2:])
		}
		if g.keep(d) > aheadMost && !g.rest(aheadMost/2) {
			return false
		}
	}
	return g.ctx.Err() == nil
}

// entered makes the places of a directory, those that its node will have.
func entered(hits []hit) []*place {
	stack := make([]*place, len(hits))
	for i := range hits {
		stack[i] = hits[i].enter()
		hits[i].made = stack[i]
	}
	return stack
}

// read1 reads one directory; nil when it is large, or cannot be read, which is for
// whoever lists it to say.
func (g *aheadOf) read1(stack []*place) *foundDir {
	const most = aheadMost / 2
	names, err := g.o.names(g.ctx, stack, false, most)
	if err != nil {
		return nil
	}
	d := &foundDir{stack: stack, names: names, hits: make([][]hit, len(names)), weight: 1 + len(names)}
	for i := range names {
		f, err := g.o.tree.find(g.ctx, stack, names[i].name)
		if err != nil || f.volatile || slices.ContainsFunc(f.hits, g.changes) {
			continue
		}
		d.hits[i] = f.hits
		if d.weight += len(f.hits); d.weight > most {
			return nil
		}
	}
	return d
}

// changes tells whether what is seen of h may be another thing soon: what is in the
// upper or the work directory, or another filesystem's.
func (g *aheadOf) changes(h hit) bool {
	return h.covered || slices.Contains(g.o.tree.written, fileID{h.st.Dev, h.st.Ino})
}

// keep keeps what was found, unless the directory was listed meanwhile, and returns
// the weight of all that is kept.
func (g *aheadOf) keep(d *foundDir) int {
	a := g.a
	a.mu.Lock()
	defer a.mu.Unlock()
	if d.stack[0].listed.Load() {
		return a.weight
	}
	a.found[d.stack[0]] = d
	a.order = append(a.order, d)
	a.weight += d.weight
	a.read++
	g.read++
	return a.weight
}

// rest waits until what is kept is no more than until. It returns false when nobody
// follows.
func (g *aheadOf) rest(until int) bool {
	a := g.a
	patient := time.NewTicker(a.patience)
	defer patient.Stop()
	for {
		a.mu.Lock()
		over, used := a.weight <= until, g.used
		g.resting, g.until = !over, until
		a.mu.Unlock()
		if over {
			return true
		}
		select {
		case <-g.wake:
		case <-g.ctx.Done():
			return false
		case <-patient.C:
			a.mu.Lock()
			idle := g.used == used
			a.mu.Unlock()
			if idle {
				return false
			}
		}
	}
}

// leave has the places of a directory, which no node may ever have, closed.
func (g *aheadOf) leave(stack []*place) {
	if g.opened = append(g.opened, stack...); len(g.opened) > aheadMost {
		g.close()
	}
}

// close closes what was opened and will not be used, and what is above that: it may
// have been opened again on the way after its node was dropped. What is in use is
// only opened again.
func (g *aheadOf) close() {
	above := map[*place]bool{}
	for _, p := range g.opened {
		for ; p != nil && !above[p]; p = p.up {
			above[p] = true
		}
	}
	g.o.tree.cache.drop(slices.Collect(maps.Keys(above)))
	g.opened = nil
}

// end gives up what was not used.
func (g *aheadOf) end() {
	a := g.a
	a.mu.Lock()
	for _, d := range a.found {
		g.opened = append(g.opened, d.stack...)
	}
	if len(a.found) > 0 {
		a.current = nil
	}
	a.keepLastLocked()
	if a.need = min(4*a.need, walkRowMost); g.read < 2*g.used {
		a.need = a.row
	}
	a.found, a.order, a.weight = nil, nil, 0
	a.mu.Unlock()
	g.close()
	g.cancel()
	a.mu.Lock()
	a.running = nil
	a.mu.Unlock()
}
