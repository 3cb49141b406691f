package fsview

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

// openChanges makes the file `changes`: its lines are made while it is read.
func openChanges(_ context.Context, p place) (blob, error) {
	id, ok := p.layerID()
	if !ok {
		return nil, p.missing()
	}
	return changesBlob(p.fs.store, "", id), nil
}

// changesBlob is the text of store.Changes.
func changesBlob(s *store.Store, from, to string) blob {
	return newGenerated(func(ctx context.Context, w io.Writer) error {
		b := bufio.NewWriter(w)
		err := s.Changes(ctx, from, to, func(c layertar.Change) error {
			_, err := fmt.Fprintf(b, "%s %s\n", c.Kind, strconv.Quote(c.Path))
			return err
		})
		if err != nil {
			return err
		}
		return b.Flush()
	}, nothing)
}

// openDiff makes the content of diff.tar for reading.
func openDiff(ctx context.Context, p place) (blob, error) {
	id, ok := p.layerID()
	if !ok {
		return nil, p.missing()
	}
	return tarBlob(ctx, p.fs.store, id)
}

// tarBlob is a layer's diff as an archive.
func tarBlob(ctx context.Context, s *store.Store, id string) (blob, error) {
	t, err := s.DiffTar(ctx, id)
	if err != nil {
		return nil, err
	}
	if n, known := t.Size(); known {
		return &readerBlob{t, n, t.Close}, nil
	}
	return newGenerated(func(ctx context.Context, w io.Writer) error {
		_, err := t.Copy(ctx, w)
		return err
	}, t.Close), nil
}

// diffSize is the exact size of diff.tar, where a record of the stream tells
// it.
func diffSize(ctx context.Context, p place) (int64, bool) {
	id, ok := p.layerID()
	if !ok {
		return 0, false
	}
	return p.fs.sizes.ofLayer(ctx, p.fs.store, p.tx.LayerByID(id))
}

// sizeCache remembers which layers have a recorded stream: opening one reads
// all of its record. It is good while the layer has the same diff.
type sizeCache struct {
	mu    sync.Mutex
	known map[string]sizeOf // by layer ID; guarded by mu
}

type sizeOf struct {
	diff    digest.Digest
	created time.Time
	size    int64
	known   bool
}

// ofLayer is the size of a layer's recorded stream; l may be nil.
func (c *sizeCache) ofLayer(ctx context.Context, s *store.Store, l *store.Layer) (int64, bool) {
	if l == nil || l.DiffDigest == "" {
		return 0, false
	}
	return c.of(ctx, s, l)
}

func (c *sizeCache) of(ctx context.Context, s *store.Store, l *store.Layer) (int64, bool) {
	c.mu.Lock()
	have, ok := c.known[l.ID]
	c.mu.Unlock()
	if ok && have.diff == l.DiffDigest && have.created.Equal(l.Created) {
		return have.size, have.known
	}
	t, err := s.RecordedTar(ctx, l.ID)
	if err != nil {
		return 0, false
	}
	have = sizeOf{diff: l.DiffDigest, created: l.Created}
	if t != nil {
		have.size, have.known = t.Size()
		if err := t.Close(); err != nil {
			return 0, false
		}
	}
	c.mu.Lock()
	if c.known == nil || len(c.known) > maxSizes {
		c.known = map[string]sizeOf{}
	}
	c.known[l.ID] = have
	c.mu.Unlock()
	return have.size, have.known
}

// maxSizes bounds the memory of sizeCache.
const maxSizes = 8192

// sink is where a written stream goes.
type sink interface {
	io.Writer
	// Boundary tells whether the stream could end here.
	Boundary() (bool, error)
	// Commit ends the stream and makes it count; the sink is over then.
	Commit(ctx context.Context) error
	// Discard drops everything.
	Discard(ctx context.Context) error
}

// stagedSink is a stream into a layer in the making.
type stagedSink struct {
	*layertar.Push
	staged *store.StagedLayer
	commit func(ctx context.Context) error
}

// Commit implements sink.
func (s *stagedSink) Commit(ctx context.Context) error { return s.commit(ctx) }

// Discard implements sink.
func (s *stagedSink) Discard(ctx context.Context) error { return s.staged.Discard(ctx) }

// openSink stages a stream that is to be added to the place's layer.
func openSink(ctx context.Context, p place) (sink, error) {
	id, ok := p.layerID()
	if !ok {
		return nil, p.missing()
	}
	staged, err := p.fs.store.StageDiff(ctx, id)
	if err != nil {
		return nil, err
	}
	// The stream outlives the request that brings its first bytes.
	push, err := staged.Push(context.WithoutCancel(ctx))
	if err != nil {
		return nil, errors.Join(err, staged.Discard(ctx))
	}
	return &stagedSink{push, staged, func(ctx context.Context) error {
		_, err := staged.Commit(ctx)
		return err
	}}, nil
}

// checkDiffWrite refuses early what the store would refuse at the first write.
func checkDiffWrite(p place) error {
	id, ok := p.layerID()
	if !ok {
		return p.missing()
	}
	l := p.tx.LayerByID(id)
	switch m, _ := p.tx.Mountpoint(id); {
	case l == nil:
		return errno.New(errno.ErrDamaged, "the layer %s is missing", short(id))
	case l.ReadOnly:
		return errno.New(errno.ErrReadOnly, "the layer is in a read-only store: make a child layer and write there")
	case l.Sealed():
		return errno.New(errno.ErrReadOnly, "the layer was made read-only: make a child layer and write there")
	case m.Count > 0:
		return errno.New(errno.ErrInUse, "the layer is mounted: `echo umount > ctl` first")
	case len(p.tx.Children(id)) > 0 || len(p.tx.ImagesOn(id)) > 0 || len(p.tx.MappedBy(id)) > 0:
		q := p.at(p.fs.paths["/layers/<layer>"], id, "")
		return errno.New(errno.ErrInUse, "the layer is used by %s: make a child layer and write there", q.describeUsers())
	}
	return nil
}

// openStream opens a stream for writing; nothing is staged before the first
// byte comes.
func (p place) openStream(_ context.Context, flags int) (vnode.Handle, error) {
	if flags&syscall.O_ACCMODE == syscall.O_RDWR {
		return nil, errno.New(errno.ErrBadValue, "%s is either read or written, not both at once", p.label())
	}
	h := &streamHandle{fs: p.fs, w: p.where, appending: flags&syscall.O_APPEND != 0}
	if p.row.obj == objDraft {
		p.fs.draft(p.id).use(1)
	}
	return h, nil
}

// streamHandle is a stream open for writing. It takes bytes front to back;
// what is skipped is zeros (cp leaves holes of sparse archives out). FLUSH
// commits when the stream stands on a header boundary or at its end, else it
// fails with EBADMSG and the stream stays open, for the descriptor closed may
// have been a duplicate. RELEASE without a commit discards.
type streamHandle struct {
	fs        *FS
	w         where
	appending bool

	mu   sync.Mutex // guards what follows; held during writes and commits
	sink sink
	pos  int64 // bytes taken
	done int64 // bytes that the last commit had
	// failed is the error that ended the stream.
	failed error
}

var (
	_ vnode.Writer     = (*streamHandle)(nil)
	_ vnode.Flusher    = (*streamHandle)(nil)
	_ vnode.Truncater  = (*streamHandle)(nil)
	_ vnode.HandleAttr = (*streamHandle)(nil)
)

// Flags implements vnode.Handle.
func (h *streamHandle) Flags() vnode.OpenFlags { return vnode.DirectIO }

// ReadAt implements vnode.Handle.
func (h *streamHandle) ReadAt(context.Context, []byte, int64) (int, error) { return 0, syscall.EBADF }

// Attr implements vnode.HandleAttr: the size is what was written.
func (h *streamHandle) Attr(ctx context.Context) (vnode.Attr, error) {
	n := baseNode{h.fs, h.w}
	a, err := n.Attr(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	a.Size = uint64(h.pos)
	return a, err
}

// WriteAt implements vnode.Writer.
func (h *streamHandle) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.appending {
		off = h.pos
	}
	err := h.advanceLocked(ctx, off)
	if err == nil {
		err = h.putLocked(ctx, p)
	}
	if err != nil {
		h.fs.spoil(h.w, err)
		return 0, h.fs.fail(h.w, "writing", err)
	}
	return len(p), nil
}

// advanceLocked brings the stream to off with zeros.
func (h *streamHandle) advanceLocked(ctx context.Context, off int64) error {
	if off < h.pos {
		return errno.New(errno.ErrSeek, "a stream cannot be written at %d again: %d bytes of it were taken already; write it front to back", off, h.pos)
	}
	if off == h.pos {
		return nil
	}
	var zeros [32 << 10]byte
	for h.pos < off {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := h.putLocked(ctx, zeros[:min(off-h.pos, int64(len(zeros)))]); err != nil {
			return err
		}
	}
	return nil
}

func (h *streamHandle) putLocked(ctx context.Context, p []byte) error {
	if h.failed != nil {
		return h.failed
	}
	if h.sink == nil {
		if h.pos > 0 {
			return errno.New(errno.ErrBadStream, "the archive was committed when it was closed; open the file again to add another")
		}
		at, err := h.fs.place(ctx, h.w)
		if err != nil {
			return err
		}
		if h.sink, err = h.w.row.sink(ctx, at); err != nil {
			return err
		}
	}
	// A write that waits for the disk ends when the writer is interrupted.
	n, err := h.sink.Write(p)
	h.pos += int64(n)
	if err != nil {
		h.failed = fmt.Errorf("taking the archive into %s: %w", h.fs.pathNow(h.w), err)
		return h.failed
	}
	return nil
}

// Flush implements vnode.Flusher.
func (h *streamHandle) Flush(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sink == nil || h.pos == h.done {
		return nil
	}
	err := h.flushLocked(ctx)
	h.fs.spoil(h.w, err)
	if err != nil {
		return h.fs.fail(h.w, "closing", err)
	}
	return nil
}

func (h *streamHandle) flushLocked(ctx context.Context) error {
	if h.failed != nil {
		return h.failed
	}
	ok, err := h.sink.Boundary()
	if err != nil {
		h.failed = fmt.Errorf("taking the archive into %s: %w", h.fs.pathNow(h.w), err)
		return h.failed
	}
	if !ok {
		return errno.New(errno.ErrBadStream, "the archive for %s ends inside a member after %d bytes (unexpected EOF): nothing was changed; send it whole", h.fs.pathNow(h.w), h.pos)
	}
	h.done = h.pos
	s := h.sink
	h.sink = nil
	// All of it is extracted; a signal does not undo a close.
	if err := s.Commit(context.WithoutCancel(ctx)); err != nil {
		h.failed = fmt.Errorf("adding the archive to %s: %w", h.fs.pathNow(h.w), err)
	}
	return h.failed
}

// Truncate implements vnode.Truncater: a longer size is zeros, as cp sets it
// after a hole at the end.
func (h *streamHandle) Truncate(ctx context.Context, size uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if size == 0 && h.pos == 0 {
		return nil
	}
	if size > 1<<62 {
		return h.fs.fail(h.w, "truncating", syscall.EFBIG)
	}
	if err := h.advanceLocked(ctx, int64(size)); err != nil {
		return h.fs.fail(h.w, "truncating", err)
	}
	return nil
}

// Release implements vnode.Handle.
func (h *streamHandle) Release(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.w.row.obj == objDraft {
		if d := h.fs.draft(h.w.id); d != nil {
			d.use(-1)
		}
	}
	s := h.sink
	h.sink = nil
	if s == nil {
		return nil
	}
	return s.Discard(context.WithoutCancel(ctx))
}

// errTruncateStream answers truncate(2): to zero it is a shell's `>`.
func errTruncateStream(p place, size uint64) error {
	if size == 0 {
		return nil
	}
	return errno.New(errno.ErrBadValue, "%s is a stream and has no size that could be set", p.label())
}
