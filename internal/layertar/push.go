package layertar

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"github.com/plyfs/plyfs/internal/errno"
)

// abortError is what an aborted import ends with.
type abortError struct{}

func (abortError) Error() string { return "the import was given up" }

// Push is Import fed by writes. Its methods may be called from several
// goroutines; each Push must end with Finish or Abort.
//
// The write's bytes are handed over without a copy: Write returns when the
// import has taken them. Boundary then knows from the flow's own state, under
// its one mutex, that nothing is under way any more.
type Push struct {
	f *flow
	p *parser

	writeMu sync.Mutex // one Write at a time; taken before f.mu

	pending []byte // guarded by f.mu: what the current Write has left
	closed  bool   // guarded by f.mu: no more writes
	reading bool   // guarded by f.mu: the import waits in Read for bytes
	written int64  // guarded by f.mu

	done chan struct{} // closed when res and err are set
	res  Result
	err  error
}

// NewPush starts an import of what will be written. See Import for dir and
// split.
func NewPush(ctx context.Context, dir *os.File, split io.Writer, o ApplyOptions) *Push {
	o.Limits = o.Limits.withDefaults()
	p := &Push{p: &parser{}, done: make(chan struct{})}
	p.f = newFlow(pushReader{p}, o.Limits)
	p.f.frames = &frameTracker{}
	go func() {
		res, err := runImport(ctx, p.f, dir, split, o, p.p)
		p.f.mu.Lock()
		p.res, p.err = res, err
		p.f.changed.Broadcast()
		p.f.mu.Unlock()
		close(p.done)
	}()
	return p
}

// pushReader is the import's side.
type pushReader struct{ p *Push }

func (r pushReader) Read(b []byte) (int, error) {
	p := r.p
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	for len(p.pending) == 0 && !p.closed && p.f.stopped == nil {
		p.reading = true
		p.f.changed.Broadcast()
		p.f.changed.Wait()
	}
	p.reading = false
	switch {
	case p.f.stopped != nil:
		return 0, p.f.stopped
	case len(p.pending) == 0:
		return 0, io.EOF
	}
	n := copy(b, p.pending)
	p.pending = p.pending[n:]
	if len(p.pending) == 0 {
		p.f.changed.Broadcast()
	}
	return n, nil
}

// Write hands b to the import and returns when it has taken all of it. An
// error of the import is returned by the next Write at the latest, and by
// every one after it.
func (p *Push) Write(b []byte) (int, error) {
	p.writeMu.Lock()
	defer p.writeMu.Unlock()
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	if err := p.failedLocked(); err != nil {
		return 0, err
	}
	if p.closed {
		return 0, errno.New(errno.ErrBadValue, "the stream has been ended, nothing can be written to it")
	}
	p.pending = b
	p.f.changed.Broadcast()
	for len(p.pending) > 0 && p.failedLocked() == nil {
		p.f.changed.Wait()
	}
	n := len(b) - len(p.pending)
	p.pending = nil
	p.written += int64(n)
	if n < len(b) {
		return n, p.failedLocked()
	}
	return n, nil
}

// failedLocked is why the import takes no more, nil while it does. The flow
// stops only for an error.
func (p *Push) failedLocked() error {
	if p.f.stopped != nil {
		return p.f.stopped
	}
	if p.f.err != nil && p.f.err != io.EOF { //nolint:errorlint // the flow keeps it bare
		return p.f.err
	}
	return p.err
}

// Boundary waits until everything written is consumed and tells whether the
// stream could end here: on a header boundary or after the end of the
// archive, with the compression frame complete; also when nothing was
// written. The error is the import's, if it has failed.
func (p *Push) Boundary() (bool, error) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	for {
		if err := p.failedLocked(); err != nil {
			return false, err
		}
		if p.closed {
			return true, nil
		}
		if len(p.pending) == 0 && p.reading && p.f.waiting && len(p.f.blocks) == 0 {
			return p.atBoundaryLocked(), nil
		}
		p.f.changed.Wait()
	}
}

// atBoundaryLocked looks at both goroutines' state while they wait.
func (p *Push) atBoundaryLocked() bool {
	if p.written == 0 {
		return true
	}
	between := p.f.dec != nil && p.f.dec.between
	if !p.f.frames.complete(between) {
		return false
	}
	return p.p.ended || (!p.p.member && p.f.taken%blockSize == 0)
}

// Written returns how many bytes the writes have brought.
func (p *Push) Written() int64 {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	return p.written
}

// Finish ends the stream and waits for the import. Called again, it returns
// the same.
func (p *Push) Finish() (Result, error) {
	p.f.mu.Lock()
	p.closed = true
	p.f.changed.Broadcast()
	p.f.mu.Unlock()
	<-p.done
	return p.res, p.err
}

// Abort stops the import and waits for it. What it extracted is left in the
// directory. After Finish or Abort it does nothing.
func (p *Push) Abort() {
	p.f.stop(abortError{})
	<-p.done
}

// Aborted tells whether an error is that of a Push that was given up.
func Aborted(err error) bool {
	var a abortError
	return errors.As(err, &a)
}
