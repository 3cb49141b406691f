package layertar

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/errno"
)

const (
	flowBlock = 256 << 10 // bytes of a block
	// flowTotal is how many blocks there are: waiting for the parser, or held
	// by pieces that are not written yet.
	flowTotal = 20
)

// fblock is a block of the decompressed stream. It goes back to its flow when
// the last one who holds it lets go.
type fblock struct {
	f    *flow
	b    []byte
	refs atomic.Int32
}

func (b *fblock) release() {
	if b.refs.Add(-1) > 0 {
		return
	}
	b.f.mu.Lock()
	b.f.free = append(b.f.free, b)
	b.f.changed.Broadcast()
	b.f.mu.Unlock()
}

// piece is a part of a block, held until it is released.
type piece struct {
	b  []byte
	of *fblock
}

func (p piece) release() { p.of.release() }

// flow is the first half of an import: one goroutine (feed) reads, hashes,
// decompresses and hashes again; the parser's goroutine takes the result
// through Read. See the package comment for its rules.
type flow struct {
	src io.Reader
	lim Limits
	// pushed is set when src is a Push, which then asks for frames.
	frames *frameTracker

	// Of feed's goroutine until it has ended (done), then of everyone; outSum
	// is the hashing goroutine's.
	inSum, outSum hash.Hash
	inN, outN     int64
	plain         bool
	short         bool        // the last read gave less than it was asked for
	toc           *tocTracker // nil when no table of contents is wanted
	dec           *decoder

	mu      sync.Mutex
	changed sync.Cond // on mu; anything below has changed

	blocks  []*fblock // guarded by mu: full, in order
	free    []*fblock // guarded by mu
	made    int       // guarded by mu: blocks that there are
	err     error     // guarded by mu: why no more blocks come; io.EOF at the end
	stopped error     // guarded by mu: why the parser wants no more
	waiting bool      // guarded by mu: the parser waits for a block
	taken   int64     // guarded by mu: decompressed bytes that the parser has got

	// Of the parser's goroutine: what it reads, and what it does before it
	// may have to wait.
	cur  *fblock
	rest []byte
	idle func()

	sums chan *fblock // to the hashing goroutine, in order
	done chan struct{}
}

func newFlow(src io.Reader, lim Limits) *flow {
	f := &flow{src: src, lim: lim, inSum: sha256.New(), outSum: sha256.New(), sums: make(chan *fblock, flowTotal), done: make(chan struct{})}
	f.changed.L = &f.mu
	return f
}

// feed is the goroutine. It ends when the stream does, or at the next block
// after stop; the hashing one, which is its own, ends before it.
func (f *flow) feed() {
	defer close(f.done)
	hashed := make(chan struct{})
	go f.hash(hashed)
	err := f.pump()
	f.mu.Lock()
	f.err = err
	f.changed.Broadcast()
	f.mu.Unlock()
	close(f.sums)
	<-hashed
}

func (f *flow) pump() error {
	dec, err := newDecoder(tap{f})
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.dec = dec
	f.mu.Unlock()
	f.plain = dec.kind == None
	err = f.decode(dec)
	if cerr := dec.Close(); cerr != nil {
		return cerr
	}
	return err
}

func (f *flow) decode(dec *decoder) error {
	for {
		b, err := f.space()
		if err != nil {
			return err
		}
		n, err := f.fill(dec, b.b[:flowBlock])
		f.outN += int64(n)
		if err := f.bounded(); err != nil {
			b.release()
			return err
		}
		if n > 0 {
			f.put(b, n)
		} else {
			b.release()
		}
		if err != nil {
			return err
		}
	}
}

// limitError is a refusal of the stream, to which the parser adds the member.
type limitError struct{ err error }

func (e *limitError) Error() string { return e.err.Error() }
func (e *limitError) Unwrap() error { return e.err }

// bounded refuses a stream that is too large, or too large for what it is made
// of.
func (f *flow) bounded() error {
	if over(f.outN, f.lim.Total) {
		return &limitError{errno.New(errno.ErrBadStream, "the stream is larger than the limit of %d bytes", f.lim.Total)}
	}
	if r := f.lim.Ratio; r > 0 && !f.plain && f.outN > ratioFrom && f.outN/r > f.inN {
		return &limitError{errno.New(errno.ErrBadStream, "the stream has %d bytes out of %d compressed ones, which is more than the limit of %d for one", f.outN, f.inN, r)}
	}
	return nil
}

// hash takes the decompressed stream's digest.
func (f *flow) hash(done chan<- struct{}) {
	defer close(done)
	for b := range f.sums {
		f.outSum.Write(b.b)
		b.release()
	}
}

// fill reads a block. Decompressors give little at a time; but what was pushed
// must not wait here for more, nor what came from a pipe that is empty now, when
// the parser has nothing to do: it may be broken, and its writer slow.
func (f *flow) fill(dec *decoder, b []byte) (n int, err error) {
	if f.frames != nil {
		return dec.Read(b)
	}
	for n < len(b) && err == nil {
		var m int
		m, err = dec.Read(b[n:])
		if n += m; n > 0 && f.short && !f.ready() {
			break
		}
	}
	return n, err
}

// space returns a block to fill; it waits while all of them are in use.
func (f *flow) space() (*fblock, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.free) == 0 && f.made >= flowTotal && f.stopped == nil {
		f.changed.Wait()
	}
	if f.stopped != nil {
		return nil, f.stopped
	}
	var b *fblock
	if n := len(f.free); n > 0 {
		b = f.free[n-1]
		f.free = f.free[:n-1]
	} else {
		f.made++
		b = &fblock{f: f, b: make([]byte, flowBlock)}
	}
	b.refs.Store(1)
	return b, nil
}

// put hands the block on, with its first n bytes filled.
func (f *flow) put(b *fblock, n int) {
	b.b = b.b[:n]
	b.refs.Add(1)
	f.sums <- b // has room for every block
	f.mu.Lock()
	f.blocks = append(f.blocks, b)
	f.changed.Broadcast()
	f.mu.Unlock()
}

// tap is what the decompressor reads from: src, counted and hashed.
type tap struct{ f *flow }

func (t tap) Read(b []byte) (int, error) {
	n, err := t.f.src.Read(b)
	t.f.inN += int64(n)
	t.f.short = n < len(b)
	if !t.f.plain { // else the digest of what comes out is the same
		t.f.inSum.Write(b[:n])
	}
	if t.f.toc != nil {
		t.f.toc.feed(b[:n])
	}
	if t.f.frames != nil {
		t.f.mu.Lock()
		t.f.frames.feed(b[:n])
		t.f.mu.Unlock()
	}
	if err != nil && err != io.EOF {
		err = &sourceError{err}
	}
	return n, err
}

// Read is the parser's side.
func (f *flow) Read(b []byte) (int, error) {
	if len(f.rest) == 0 {
		if err := f.take(); err != nil {
			return 0, err
		}
	}
	n := copy(b, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// next is Read without a copy: at most limit bytes (more than none).
func (f *flow) next(limit int64) (piece, error) {
	if len(f.rest) == 0 {
		if err := f.take(); err != nil {
			return piece{}, err
		}
	}
	n := min(int64(len(f.rest)), limit)
	p := piece{f.rest[:n], f.cur}
	f.cur.refs.Add(1)
	f.rest = f.rest[n:]
	return p, nil
}

// take waits for a block.
func (f *flow) take() error {
	f.drop()
	if f.idle != nil && !f.ready() {
		f.idle()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.blocks) == 0 && f.err == nil && f.stopped == nil {
		f.waiting = true
		f.changed.Broadcast()
		f.changed.Wait()
	}
	f.waiting = false
	if f.stopped != nil {
		return f.stopped
	}
	if len(f.blocks) == 0 {
		return f.err
	}
	f.cur, f.blocks = f.blocks[0], f.blocks[1:]
	f.rest = f.cur.b
	f.taken += int64(len(f.rest))
	f.changed.Broadcast()
	return nil
}

// drop lets go of the current block.
func (f *flow) drop() {
	if f.cur != nil {
		f.cur.release()
		f.cur, f.rest = nil, nil
	}
}

func (f *flow) ready() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.blocks) > 0
}

// stop makes both sides end with err (the first one given counts).
func (f *flow) stop(err error) {
	f.mu.Lock()
	if f.stopped == nil {
		f.stopped = err
	}
	f.changed.Broadcast()
	f.mu.Unlock()
}

// watch stops the flow when ctx ends; release ends the watching.
func (f *flow) watch(ctx context.Context) (release func() bool) {
	return context.AfterFunc(ctx, func() { f.stop(context.Cause(ctx)) })
}

// result fills in sizes and digests, after done.
func (f *flow) result(r *Result) {
	r.CompressedSize, r.DiffSize = f.inN, f.outN
	if f.inN == 0 {
		return
	}
	r.DiffDigest = digest.NewDigest(digest.SHA256, f.outSum)
	if r.CompressedDigest = r.DiffDigest; !f.plain {
		r.CompressedDigest = digest.NewDigest(digest.SHA256, f.inSum)
	}
	if f.dec != nil {
		r.Compression = f.dec.kind
	}
}
