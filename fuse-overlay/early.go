package fuseoverlay

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// earlyCopies are copies that are made before they are asked for. What changes the attributes of
// a whole tree (chmod -R, chown -R) goes from file to file and waits for the copy,
// and the sync, of each. So once a program has had some copied up in a row, those
// that come next in the directory's listing are staged while it is told of the
// ones before: files without a name, complete and synced, that only have to be
// linked. Most directories have few files, so those of the directories to which it
// has not come are among them, once they were read ahead (ahead.go). Nobody sees
// them, a kill leaves nothing of them, and those that nobody wants are let go: when
// nobody takes any for a while, and when the row has passed over them.
type earlyCopies struct {
	mu   sync.Mutex
	pid  uint32    // the thread whose row it is; guarded by mu, as all below
	row  int       // how many it had copied up for a change of attributes, one after the other
	last time.Time // when that was
	need int       // how long a row has to be
	most int       // how many may be staged
	// pause is what ends a row, and waits how long copies are kept when nobody
	// takes any.
	pause, waits time.Duration

	// used and lost are how many were taken, and let go of for nothing.
	used, lost uint64
	// asked is how often copies were asked for, and usedBefore what used was when
	// those that were passed over were let go of.
	asked, usedBefore uint64

	early   map[spot]*early // staged, or to be, by where the file lies below
	queue   []*early        // of these, those that nobody has begun
	workers int
	timer   *time.Timer // lets go of what nobody wants
	ended   bool

	working sync.WaitGroup
}

// early is a copy that is made before it is asked for.
type early struct {
	n     *node // nil: the file has not been looked up yet
	from  spot
	at    uint64        // earlyCopies.asked when it was put on the table
	begun bool          // guarded by earlyCopies.mu
	last  bool          // more of the directory's files are to be staged when this one is taken
	away  bool          // nobody wants it any more; guarded by earlyCopies.mu
	done  chan struct{} // closed when copy is what it will be
	copy  *fileCopy     // nil: it came to nothing. Whoever took it off the table has it.
}

const (
	// rowShort and rowLong are how long a row must be at first, and at most: with
	// each time that more copies were made for nothing than used twice as long.
	rowShort, rowLong = 8, 1 << 12
	rowPause          = 100 * time.Millisecond
	// earlyFiles of a directory are staged at a time, earlyMost in all, or as many
	// as a quarter of the files that may be open, and none of more than earlyBytes.
	earlyFiles, earlyMost, earlyBytes = 32, 128, 256 << 10
	// earlyWorkers make them at a time, up to earlyTogether each.
	earlyWorkers, earlyTogether = 4, 8
	earlyWaits                  = time.Second
)

// prepare makes it ready; at most most are staged.
func (a *earlyCopies) prepare(most int) {
	a.need, a.most, a.pause, a.waits = rowShort, min(earlyMost, most), rowPause, earlyWaits
	a.early = map[spot]*early{}
}

// stagesEarly tells whether copies are staged before they are asked for: not where
// they would have names, or no data, where what the upper holds is counted, or where
// the kernel is not to believe for good what layers were.
func (o *Overlay) stagesEarly() bool {
	return o.work != nil && o.work.unnamed && o.quota == nil && !o.c.Metacopy && o.c.AttrTimeout == 0
}

// takeEarly returns the copy of n, about to be copied up to size, if it was made
// already, or is being made.
func (o *Overlay) takeEarly(ctx context.Context, n *node, size int64) (*fileCopy, error) {
	if !o.stagesEarly() {
		return nil, nil
	}
	e, more := o.earlyCopies.take(callerOf(ctx), n, size)
	if more {
		o.stageAfter(n)
	}
	if e == nil {
		return nil, nil
	}
	if err := await(ctx, e.done); err != nil {
		o.earlyCopies.leave(e)
		return nil, err
	}
	if size >= 0 { // less than all of it is wanted
		e.copy.discard()
		return nil, nil
	}
	return e.copy, nil
}

// callerOf returns the thread whose request ctx is, 0 when that is not known.
func callerOf(ctx context.Context) uint32 {
	if a, ok := ctx.(asked); ok {
		return a.pid
	}
	return 0
}

// take takes n's copy off the table, if it has been begun, and tells whether more
// are to be staged. The row goes on or ends.
func (a *earlyCopies) take(pid uint32, n *node, size int64) (_ *early, more bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	switch {
	case size != metaOnly:
		if !n.isDir() { // directories are copied up for what is in them
			a.row = 0
		}
	case pid != a.pid || now.Sub(a.last) > a.pause:
		a.pid, a.row = pid, 1
	default:
		a.row++
	}
	a.last = now
	a.asked++
	more = a.row >= a.need
	e := a.early[n.lower]
	if e == nil {
		return nil, more
	}
	delete(a.early, n.lower)
	a.timer.Reset(a.waits)
	more = more && e.last
	if !e.begun {
		a.unqueueLocked(e)
		return nil, more
	}
	a.used++
	return e, more
}

// leave gives back what was taken off the table, and may not be done.
func (a *earlyCopies) leave(e *early) {
	a.mu.Lock()
	e.away = true
	c := e.copy
	a.mu.Unlock()
	c.discard()
}

func (a *earlyCopies) unqueueLocked(e *early) {
	for i, q := range a.queue {
		if q == e {
			a.queue = append(a.queue[:i], a.queue[i+1:]...)
			return
		}
	}
}

// rowOf tells whether the thread is in a row.
func (a *earlyCopies) rowOf(pid uint32) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pid == pid && a.row >= a.need && time.Since(a.last) < a.pause
}

// stageAfter stages files that come after n in its directory, and after that.
func (o *Overlay) stageAfter(n *node) {
	var buf [earlyFiles]entry
	k := 0
	o.treeMu.Lock()
	if dir := n.home.dir; dir != nil && dir.dir.idx.complete {
		if e := dir.dir.idx.get(n.home.name); e != nil {
			k = dir.dir.idx.after(e.cookie, buf[:])
		}
	}
	o.treeMu.Unlock()
	o.stageEntries(buf[:k])
}

// stageListed stages the first files of a directory that is listed by a thread in
// a row.
func (o *Overlay) stageListed(ctx context.Context, dir *node) {
	if !o.stagesEarly() || !o.earlyCopies.rowOf(callerOf(ctx)) {
		return
	}
	var buf [earlyFiles]entry
	o.treeMu.Lock()
	k := dir.dir.idx.after(0, buf[:])
	o.treeMu.Unlock()
	o.stageEntries(buf[:k])
}

// stageEntries stages the files among the entries of a directory and, where these
// are few, those of directories that the program has not come to yet.
func (o *Overlay) stageEntries(entries []entry) {
	var wanted []*early
	for i := range entries {
		n := entries[i].node
		if n != nil && n.typ == unix.S_IFREG && !n.is(flagUp) {
			wanted = append(wanted, &early{n: n, from: n.lower})
		}
	}
	for _, c := range o.earlyCopies.passedOver() {
		c.discard()
	}
	a := &o.earlyCopies
	wanted, room := a.unknown(wanted)
	if room > 0 && o.c.Formats&Override == 0 { // else what a copy is to keep is known of nodes only
		for _, s := range o.ahead.files(room) {
			wanted = append(wanted, &early{from: s})
		}
	}
	for range a.add(wanted) {
		go o.stageEarly()
	}
}

// unknown leaves out what is on the table, and tells how many files of other
// directories are to be there, too.
func (a *earlyCopies) unknown(wanted []*early) (left []*early, room int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	left = slices.DeleteFunc(wanted, func(e *early) bool { return a.early[e.from] != nil })
	return left, earlyFiles - len(a.early) - len(left)
}

// add puts files on the table that are not there, and tells how many more are to
// work on it.
func (a *earlyCopies) add(wanted []*early) (workers int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return 0
	}
	from := len(a.queue)
	for _, e := range wanted {
		if a.early[e.from] == nil && len(a.early) < a.most {
			e.at, e.done = a.asked, make(chan struct{})
			a.early[e.from] = e
			a.queue = append(a.queue, e)
		}
	}
	added := a.queue[from:]
	if len(added) == 0 {
		return 0
	}
	added[len(added)/2].last = true
	if a.timer == nil {
		a.timer = time.AfterFunc(a.waits, func() { a.dropAll() })
	} else {
		a.timer.Reset(a.waits)
	}
	for a.workers < min(earlyWorkers, len(a.queue)) {
		a.workers++
		workers++
		a.working.Add(1)
	}
	return workers
}

// stageEarly makes what is on the table.
func (o *Overlay) stageEarly() {
	a := &o.earlyCopies
	defer a.working.Done()
	for some := a.begin(); len(some) > 0; some = a.begin() {
		o.makeSome(some)
	}
}

// begin returns the next to be made, none when the worker is to end.
func (a *earlyCopies) begin() []*early {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := min(earlyTogether, (len(a.queue)+earlyWorkers-1)/earlyWorkers)
	if k == 0 {
		a.workers--
		return nil
	}
	some := slices.Clone(a.queue[:k])
	a.queue = a.queue[k:]
	for _, e := range some {
		e.begun = true
	}
	return some
}

// makeSome makes copies. What has to be settled is begun together: where settling
// is waiting for the disk, it is so once for many, not for each.
func (o *Overlay) makeSome(some []*early) {
	a := &o.earlyCopies
	copies := make([]*fileCopy, len(some))
	for i, e := range some {
		c := o.makeEarly(e)
		if c == nil || !o.settles(c) {
			a.finish(e, c)
			continue
		}
		o.work.begin(c.r.Fd(), 0, 0)
		copies[i] = c
	}
	for i, c := range copies {
		if c == nil {
			continue
		}
		if err := o.settleCopy(c); err != nil {
			o.earlyFailed(c.p, err)
			c.discard()
			c = nil
		}
		a.finish(some[i], c)
	}
}

// earlyFailed is called with what fails: whoever asks for the copy finds out why.
func (o *Overlay) earlyFailed(p *copyPlan, err error) {
	o.log.Debugf("a copy of %q could not be made before it was asked for: %v", p.from.name, err)
}

func (a *earlyCopies) finish(e *early, c *fileCopy) {
	a.mu.Lock()
	away := e.away
	if !away {
		e.copy = c
	}
	close(e.done)
	a.mu.Unlock()
	if away {
		c.discard()
	}
}

// makeEarly stages a copy, to be settled still; nil where that is not to be or
// cannot be.
func (o *Overlay) makeEarly(e *early) (c *fileCopy) {
	defer func() {
		if p := recover(); p != nil {
			_ = o.panicked(p)
		}
	}()
	n := e.n
	if n == nil {
		n = newNode(unix.S_IFREG, 0)
		n.lower = e.from
	}
	if n.is(flagUp) || o.mayWrite() != nil || e.from.place.besideWork() { // the upper changes
		return nil
	}
	p, err := o.planCopy(n, allData)
	if err != nil {
		return nil
	}
	defer p.close()
	if p.st.Nlink != 1 || p.size > earlyBytes || p.standIn || p.meta {
		return nil
	}
	c, err = o.stageCopy(context.Background(), n, p)
	if err != nil {
		o.earlyFailed(p, err)
		return nil
	}
	return c
}

// drop lets go of the copy of a file that the kernel has forgotten.
func (a *earlyCopies) drop(n *node) {
	a.mu.Lock()
	c := a.dropLocked(n.lower)
	a.mu.Unlock()
	c.discard()
}

// dropLocked takes the copy of what is at s off the table, and returns it if there
// is one.
func (a *earlyCopies) dropLocked(s spot) *fileCopy {
	e := a.early[s]
	if e == nil {
		return nil
	}
	delete(a.early, s)
	a.lost++
	if !e.begun {
		a.unqueueLocked(e)
		return nil
	}
	e.away = true
	return e.copy // nil as long as it is being made
}

// passedOver takes off the table what was not asked for while twice as many were
// as may be staged, and returns what there is of it: the row leaves files out, or
// goes another way.
func (a *earlyCopies) passedOver() (dead []*fileCopy) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for s, e := range a.early {
		if a.asked-e.at > 2*uint64(a.most) {
			dead = append(dead, a.dropLocked(s))
		}
	}
	a.judgeLocked(len(dead))
	return dead
}

// judgeLocked has a row be longer when dead copies, which are let go of, are more
// than were used since the last time.
func (a *earlyCopies) judgeLocked(dead int) {
	if uint64(dead) > a.used-a.usedBefore {
		a.need, a.row = min(2*a.need, rowLong), 0
	}
	if dead > 0 {
		a.usedBefore = a.used
	}
}

// dropAll lets go of what nobody took, and tells whether there was something of it.
func (a *earlyCopies) dropAll() (some bool) {
	var dead []*fileCopy
	a.mu.Lock()
	a.judgeLocked(len(a.early))
	for s := range a.early {
		dead = append(dead, a.dropLocked(s))
	}
	a.mu.Unlock()
	for _, c := range dead {
		some = some || c != nil
		c.discard()
	}
	return some
}

// stop ends it. What is being staged, which working counts, goes on for as long as
// a layer does not answer.
func (a *earlyCopies) stop() {
	a.mu.Lock()
	a.ended = true
	if a.timer != nil {
		a.timer.Stop()
	}
	a.mu.Unlock()
	a.dropAll()
}
