package fsview

import (
	"context"
	"errors"
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
	if n > 0 || err == nil || errors.Is(err, io.EOF) {
		return n, nil
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
// generator starts with the first read and is stopped by close.
type generated struct {
	make  func(ctx context.Context, w io.Writer) error
	after func() error
	ctx   context.Context // the generator's
	stop  context.CancelFunc

	mu     sync.Mutex // guards what follows; held during a read
	pipe   *io.PipeReader
	done   chan struct{}
	pos    int64
	closed bool
}

func newGenerated(make func(context.Context, io.Writer) error, after func() error) blob {
	ctx, stop := context.WithCancel(context.Background())
	return &generated{make: make, after: after, ctx: ctx, stop: stop}
}

func (g *generated) size() (int64, bool) { return 0, false }

// startLocked runs the generator.
func (g *generated) startLocked() {
	r, w := io.Pipe()
	g.pipe, g.done = r, make(chan struct{})
	go func() {
		defer close(g.done)
		// CloseWithError never fails.
		_ = w.CloseWithError(g.make(g.ctx, w))
	}()
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
	if g.pipe == nil {
		g.startLocked()
	}
	// An interrupted reader ends the generator: a part that was asked for
	// and not delivered could not be asked for again.
	unhook := context.AfterFunc(ctx, g.stop)
	defer unhook()
	n := 0
	for n < len(p) {
		m, err := g.pipe.Read(p[n:])
		n += m
		if err != nil {
			g.pos += int64(n)
			if n > 0 && errors.Is(err, io.EOF) {
				return n, nil
			}
			return n, err
		}
	}
	g.pos += int64(n)
	return n, nil
}

func (g *generated) close() error {
	g.stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	if g.pipe != nil {
		_ = g.pipe.Close() // never fails; wakes the generator
		<-g.done
		g.pipe = nil
	}
	return g.after()
}
