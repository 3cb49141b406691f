package fsview

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

// blob is content that is read in place.
type blob interface {
	// readAt follows vnode.Handle.ReadAt.
	readAt(ctx context.Context, p []byte, off int64) (int, error)
	// size is in bytes; false when it is not known beforehand.
	size() (int64, bool)
	close() error
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// blobHandle is a file of a blob, open for reading.
type blobHandle struct {
	fs   *FS
	w    where
	blob blob
}

var _ vnode.HandleAttr = (*blobHandle)(nil)

// Flags implements vnode.Handle.
func (h *blobHandle) Flags() vnode.OpenFlags {
	if _, known := h.blob.size(); !known {
		return vnode.DirectIO | vnode.NonSeekable | vnode.NoFlush
	}
	return vnode.DirectIO | vnode.NoFlush
}

// ReadAt implements vnode.Handle.
func (h *blobHandle) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := h.blob.readAt(ctx, p, off)
	switch {
	case n > 0 || err == nil || errors.Is(err, io.EOF):
		return n, nil
	case ctx.Err() != nil:
		return 0, ctx.Err() // an interrupted read is no failure: it can be made again
	}
	return 0, h.fs.fail(h.w, "reading", err)
}

// Attr implements vnode.HandleAttr.
func (h *blobHandle) Attr(ctx context.Context) (vnode.Attr, error) {
	n := baseNode{h.fs, h.w}
	a, err := n.Attr(ctx)
	if err != nil {
		return a, err
	}
	if size, known := h.blob.size(); known {
		a.Size = uint64(size)
		a.Blocks = (a.Size + 511) / 512
	}
	return a, nil
}

// Release implements vnode.Handle.
func (h *blobHandle) Release(context.Context) error { return h.blob.close() }

// fileBlob is a file on disk, as it was when it was opened.
type fileBlob struct {
	file *os.File
	n    int64
}

func newFileBlob(f *os.File) (blob, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &fileBlob{f, st.Size()}, nil
}

func (b *fileBlob) readAt(_ context.Context, p []byte, off int64) (int, error) {
	return b.file.ReadAt(p, off)
}
func (b *fileBlob) size() (int64, bool) { return b.n, true }
func (b *fileBlob) close() error        { return b.file.Close() }

// readerBlob is content of known size behind an io.ReaderAt.
type readerBlob struct {
	r     io.ReaderAt
	n     int64
	after func() error
}

func (b *readerBlob) readAt(_ context.Context, p []byte, off int64) (int, error) {
	return b.r.ReadAt(p, off)
}
func (b *readerBlob) size() (int64, bool) { return b.n, true }
func (b *readerBlob) close() error        { return b.after() }

// generated is content that is made while it is read, front to back. The
// generator starts with the first read and is stopped by close. A read that is
// interrupted loses nothing: the generator waits for the next.
type generated struct {
	make   func(ctx context.Context, w io.Writer) error
	after  func() error
	ctx    context.Context // the generator's
	stop   context.CancelFunc
	chunks chan []byte   // what the generator writes; closed when it has ended
	taken  chan struct{} // the chunk is used up
	err    error         // the generator's; set before chunks is closed

	mu      sync.Mutex // guards what follows; held during a read
	started bool
	rest    []byte // of the chunk, which is the generator's until it is told that it was taken
	pos     int64
	closed  bool
}

func newGenerated(make func(context.Context, io.Writer) error, after func() error) blob {
	g := &generated{make: make, after: after}
	g.ctx, g.stop = context.WithCancel(context.Background())
	g.chunks, g.taken = newChunks()
	return g
}

func newChunks() (chan []byte, chan struct{}) { return make(chan []byte), make(chan struct{}, 1) }

func (g *generated) size() (int64, bool) { return 0, false }

// generate runs the generator.
func (g *generated) generate() {
	defer close(g.chunks)
	g.err = g.make(g.ctx, chunkWriter{g})
}

// chunkWriter is where the generator writes to: a Write ends when all of it was read.
type chunkWriter struct{ g *generated }

// Write implements io.Writer.
func (w chunkWriter) Write(p []byte) (int, error) {
	g := w.g
	if len(p) == 0 {
		return 0, g.ctx.Err()
	}
	select {
	case g.chunks <- p:
	case <-g.ctx.Done():
		return 0, g.ctx.Err()
	}
	select {
	case <-g.taken:
		return len(p), nil
	case <-g.ctx.Done():
	}
	g.mu.Lock()
	g.rest = nil // p is the caller's again
	g.mu.Unlock()
	return 0, g.ctx.Err()
}

func (g *generated) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return 0, os.ErrClosed
	case off != g.pos:
		return 0, errno.New(errno.ErrSeek, "this stream is made while it is read, front to back: read it from the start, without seeking")
	}
	if !g.started {
		g.started = true
		go g.generate()
	}
	n := 0
	for n < len(p) {
		if err := g.moreLocked(ctx); err != nil {
			if n > 0 {
				break // the next read is told
			}
			return 0, err
		}
		m := copy(p[n:], g.rest)
		g.rest = g.rest[m:]
		n += m
		if len(g.rest) == 0 {
			g.taken <- struct{}{} // there is room: one for each chunk
		}
	}
	g.pos += int64(n)
	return n, nil
}

// moreLocked waits for a chunk if none is left.
func (g *generated) moreLocked(ctx context.Context) error {
	if len(g.rest) > 0 {
		return nil
	}
	select {
	case c, ok := <-g.chunks:
		switch {
		case ok:
			g.rest = c
		case g.err != nil:
			return g.err
		default:
			return io.EOF
		}
	case <-ctx.Done():
		return fmt.Errorf("reading a stream that is made meanwhile: %w", ctx.Err())
	}
	return nil
}

func (g *generated) close() error {
	g.stop()
	g.mu.Lock()
	g.closed = true
	started := g.started
	g.mu.Unlock()
	if started {
		for range g.chunks { // until the generator has ended
			continue
		}
	}
	return g.after()
}
