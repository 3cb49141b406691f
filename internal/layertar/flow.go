package layertar

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/errno"
)

const (
	flowBlock = 256 << 10 // bytes of a block between the two goroutines
	flowAhead = 4         // blocks that may wait
)

// flow is the first half of an import: one goroutine (feed) reads, hashes,
// decompresses and hashes again; the parser's goroutine takes the result
// through Read. See the package comment for its rules.
type flow struct {
	src   io.Reader
	limit int64 // of the decompressed stream, -1 for none
	// pushed is set when src is a Push, which then asks for frames.
	frames *frameTracker

	// Of feed's goroutine until it has ended (done), then of everyone.
	inSum, outSum hash.Hash
	inN, outN     int64
	dec           *decoder

	mu      sync.Mutex
	changed sync.Cond // on mu; anything below has changed

	blocks  [][]byte // guarded by mu: full, in order
	free    [][]byte // guarded by mu
	err     error    // guarded by mu: why no more blocks come; io.EOF at the end
	stopped error    // guarded by mu: why the parser wants no more
	waiting bool     // guarded by mu: the parser waits for a block
	taken   int64    // guarded by mu: decompressed bytes that the parser has got

	cur, rest []byte // of the parser's goroutine
	done      chan struct{}
}

func newFlow(src io.Reader, limit int64) *flow {
	f := &flow{src: src, limit: limit, inSum: sha256.New(), done: make(chan struct{})}
	f.changed.L = &f.mu
	return f
}

// feed is the goroutine. It ends when the stream does, or at the next block
// after stop.
func (f *flow) feed() {
	defer close(f.done)
	err := f.pump()
	f.mu.Lock()
	f.err = err
	f.changed.Broadcast()
	f.mu.Unlock()
}

func (f *flow) pump() error {
	dec, err := newDecoder(tap{f})
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.dec = dec
	f.mu.Unlock()
	err = f.decode(dec)
	if cerr := dec.Close(); cerr != nil {
		return cerr
	}
	return err
}

func (f *flow) decode(dec *decoder) error {
	plain := dec.kind == None
	if plain {
		f.outSum = f.inSum // one hash serves both
	} else {
		f.outSum = sha256.New()
	}
	for {
		b, err := f.space()
		if err != nil {
			return err
		}
		n, err := dec.Read(b[:flowBlock])
		f.outN += int64(n)
		if over(f.outN, f.limit) {
			return errno.New(errno.ErrBadStream, "the stream is larger than the limit of %d bytes", f.limit)
		}
		if n > 0 {
			if !plain {
				f.outSum.Write(b[:n])
			}
			f.put(b[:n])
		}
		if err != nil {
			return err
		}
	}
}

// space returns a block to fill; it waits while flowAhead of them are full.
func (f *flow) space() ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.blocks) >= flowAhead && f.stopped == nil {
		f.changed.Wait()
	}
	if f.stopped != nil {
		return nil, f.stopped
	}
	if n := len(f.free); n > 0 {
		b := f.free[n-1]
		f.free = f.free[:n-1]
		return b[:flowBlock], nil
	}
	return make([]byte, flowBlock), nil
}

func (f *flow) put(b []byte) {
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
	t.f.inSum.Write(b[:n])
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

// take waits for a block.
func (f *flow) take() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cur != nil {
		f.free = append(f.free, f.cur)
		f.cur = nil
	}
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
	f.rest = f.cur
	f.taken += int64(len(f.cur))
	f.changed.Broadcast()
	return nil
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
	r.CompressedDigest = digest.NewDigest(digest.SHA256, f.inSum)
	r.DiffDigest = digest.NewDigest(digest.SHA256, f.outSum)
	if f.dec != nil {
		r.Compression = f.dec.kind
	}
}
