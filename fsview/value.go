package fsview

import (
	"bytes"
	"context"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

var (
	_ vnode.Writer     = (*valueHandle)(nil)
	_ vnode.Flusher    = (*valueHandle)(nil)
	_ vnode.Truncater  = (*valueHandle)(nil)
	_ vnode.HandleAttr = (*valueHandle)(nil)
	_ vnode.Fsyncer    = (*valueHandle)(nil)
)

// Open implements vnode.Opener.
func (n *fileNode) Open(ctx context.Context, flags int) (vnode.Handle, error) {
	p, err := n.fs.place(ctx, n.w)
	if err != nil {
		return nil, err
	}
	h, err := p.open(ctx, flags)
	if err != nil && writes(flags) {
		return nil, n.fs.fail(n.w, "opening for writing", err)
	}
	return h, err
}

func writes(flags int) bool {
	return flags&syscall.O_ACCMODE != syscall.O_RDONLY || flags&syscall.O_TRUNC != 0
}

// open opens p. With O_CREAT the file need not be there yet.
func (p place) open(ctx context.Context, flags int) (vnode.Handle, error) {
	if p.row.has != nil && flags&syscall.O_CREAT == 0 && !p.row.has(p) {
		return nil, p.missing()
	}
	if !writes(flags) {
		return p.openRead(ctx)
	}
	if err := p.canWrite(); err != nil {
		return nil, err
	}
	if p.row.take != nil {
		return p.row.take(ctx, p, flags)
	}
	if p.row.Kind == Stream {
		return p.openStream(ctx, flags)
	}
	return p.openValue(ctx, flags)
}

// canWrite refuses what cannot be written at all, in a sentence.
func (p place) canWrite() error {
	if err := p.fs.writable(); err != nil {
		return err
	}
	kind, _ := p.row.obj.kind()
	switch {
	case p.row.put == nil && p.row.sink == nil && p.row.take == nil:
		return errno.New(errno.ErrReadOnly, "%s cannot be written: its value follows from the store", p.label())
	case p.fixed():
		return errno.New(errno.ErrReadOnly, "%s cannot be written: the %s is in an additional store, which is read-only", p.label(), kind)
	case p.row.check != nil:
		return p.row.check(p)
	}
	return nil
}

// openRead takes the value, which stays for the handle.
func (p place) openRead(ctx context.Context) (vnode.Handle, error) {
	if p.row.blob != nil {
		b, err := p.row.blob(ctx, p)
		if err != nil {
			return nil, err
		}
		return &blobHandle{fs: p.fs, w: p.where, blob: b}, nil
	}
	v, err := p.row.get(p)
	if err != nil {
		return nil, err
	}
	return &valueHandle{fs: p.fs, w: p.where, data: v}, nil
}

// openValue opens a text, ctl or raw file for writing.
func (p place) openValue(ctx context.Context, flags int) (vnode.Handle, error) {
	h := &valueHandle{fs: p.fs, w: p.where, flags: flags, writing: true, limit: p.limit()}
	switch {
	case p.row.Kind == Ctl:
	case flags&syscall.O_TRUNC != 0:
		h.cut, h.whole = true, true
	default:
		v, err := p.value(ctx, h.limit)
		if err != nil {
			return nil, err
		}
		h.data, h.base = v, len(v)
	}
	p.fs.addWriter(h)
	return h, nil
}

// limit is how many bytes the file can take.
func (p place) limit() int64 {
	if p.row.Kind == Raw {
		return p.fs.opts.BigDataLimit
	}
	return textLimit
}

// value returns the whole value, which may be changed. A value over the limit
// can be replaced but not edited.
func (p place) value(ctx context.Context, limit int64) ([]byte, error) {
	if p.row.blob == nil {
		v, err := p.row.get(p)
		return slices.Clone(v), err
	}
	if p.row.has != nil && !p.row.has(p) {
		return nil, nil
	}
	b, err := p.row.blob(ctx, p)
	if err != nil {
		return nil, err
	}
	v, err := readBlob(ctx, b, limit)
	if cerr := b.close(); err == nil {
		err = cerr
	}
	return v, err
}

func readBlob(ctx context.Context, b blob, limit int64) ([]byte, error) {
	size, known := b.size()
	if !known || size > limit {
		return nil, errno.New(errno.ErrTooLarge, "the file holds more than %d bytes, its limit for editing: replace it as a whole (> not >>)", limit)
	}
	v := make([]byte, size)
	n := 0
	for n < len(v) {
		m, err := b.readAt(ctx, v[n:], int64(n))
		n += m
		if err != nil || m == 0 {
			return v[:n], ignoreEOF(err)
		}
	}
	return v, nil
}

// valueHandle is an open text, ctl or raw file. Its value was taken when it
// was opened. What is written is kept in data and committed
//
//   - text and ctl: when a write ends in a newline, before it is answered;
//   - at FLUSH, if something was written or truncated since the last commit,
//     but not at the FLUSH of a fresh handle that nothing was written to
//     (shells close a duplicate first);
//   - at RELEASE, what is left: a file that was only truncated.
//
// A commit that fails has reported its error; it is not tried again by a later
// FLUSH or RELEASE, and a write that it belongs to is undone in data.
type valueHandle struct {
	fs      *FS
	w       where
	flags   int
	writing bool
	limit   int64

	mu    sync.Mutex // guards what follows; held during a commit
	data  []byte
	base  int  // how much of data was there at open or at the last commit
	whole bool // truncated at any time: data is the whole value
	wrote bool // since the last commit
	cut   bool // truncated since the last commit
	ever  bool // something was written to this handle
}

// Flags implements vnode.Handle.
func (h *valueHandle) Flags() vnode.OpenFlags {
	if h.w.row.Valid == vnode.ValidForever && !h.writing {
		return vnode.KeepCache | vnode.NoFlush
	}
	if !h.writing {
		return vnode.DirectIO | vnode.NoFlush
	}
	return vnode.DirectIO
}

// ReadAt implements vnode.Handle.
func (h *valueHandle) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return readSlice(h.data, p, off)
}

func readSlice(data, p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(data)) {
		return 0, nil
	}
	return copy(p, data[off:]), nil
}

// Attr implements vnode.HandleAttr.
func (h *valueHandle) Attr(ctx context.Context) (vnode.Attr, error) {
	n := baseNode{h.fs, h.w}
	a, err := n.Attr(ctx)
	if err != nil {
		return a, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	a.Size = uint64(len(h.data))
	return a, nil
}

// WriteAt implements vnode.Writer.
func (h *valueHandle) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.writeLocked(ctx, p, off); err != nil {
		h.fs.spoil(h.w, err)
		return 0, h.fs.fail(h.w, "writing", err)
	}
	return len(p), nil
}

func (h *valueHandle) writeLocked(ctx context.Context, p []byte, off int64) error {
	if !h.writing {
		return syscall.EBADF
	}
	if h.flags&syscall.O_APPEND != 0 || h.w.row.Kind == Ctl {
		off = int64(len(h.data))
	}
	if off < 0 || off > h.limit || int64(len(p)) > h.limit-off {
		// Nothing of it is taken, and the rest is not committed either.
		h.wrote, h.cut, h.data = false, false, h.data[:0:0]
		return h.errLimit()
	}
	old, oldWrote := h.data, h.wrote
	now := h.w.row.Kind != Raw && bytes.HasSuffix(p, []byte("\n"))
	if now {
		h.data = slices.Clone(old) // kept to undo
	}
	if end := int(off) + len(p); end > len(h.data) {
		h.data = append(h.data, make([]byte, end-len(h.data))...)
	}
	copy(h.data[off:], p)
	h.wrote, h.ever = true, true
	if !now {
		return nil
	}
	if err := h.commitLocked(ctx); err != nil {
		h.data, h.wrote, h.cut = old, oldWrote, false
		return err
	}
	return nil
}

func (h *valueHandle) errLimit() error {
	what := "a text file"
	hint := "write less"
	if h.w.row.Kind == Raw {
		what, hint = "big data and metadata", "mount with a larger limit for big data"
	}
	return errno.New(errno.ErrTooLarge, "%s takes at most %d bytes, the limit of %s: nothing was changed; %s", h.fs.pathNow(h.w), h.limit, what, hint)
}

// commitLocked gives data to the row. mu is held.
func (h *valueHandle) commitLocked(ctx context.Context) error {
	err := h.giveLocked(ctx)
	h.fs.spoil(h.w, err)
	return err
}

func (h *valueHandle) giveLocked(ctx context.Context) error {
	h.wrote, h.cut = false, false
	p, err := h.fs.place(ctx, h.w)
	if err != nil {
		return err
	}
	if err := p.canWrite(); err != nil {
		return err
	}
	row := h.w.row
	switch {
	case row.Kind == Ctl:
		v := h.data
		h.data = nil
		return row.put(ctx, p, v)
	case h.flags&syscall.O_APPEND != 0 && row.add != nil && !h.whole:
		err = row.add(ctx, p, h.data[h.base:])
	default:
		err = row.put(ctx, p, h.data)
	}
	if err == nil && h.flags&syscall.O_APPEND != 0 {
		h.base = len(h.data)
	}
	return err
}

// Truncate implements vnode.Truncater.
func (h *valueHandle) Truncate(_ context.Context, size uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.truncateLocked(size)
}

func (h *valueHandle) truncateLocked(size uint64) error {
	switch {
	case !h.writing:
		return syscall.EINVAL
	case h.w.row.Kind == Ctl:
		return nil
	case size > uint64(h.limit):
		h.fs.spoil(h.w, h.errLimit())
		return h.fs.fail(h.w, "truncating", h.errLimit())
	}
	if n := int(size); n <= len(h.data) {
		h.data = h.data[:n:n]
	} else {
		h.data = append(h.data, make([]byte, n-len(h.data))...)
	}
	h.cut, h.whole = true, true
	return nil
}

// Flush implements vnode.Flusher. A signal does not undo a close: programs
// cannot close again, and one that is killed commits what it had sent. Verbs it
// does end.
func (h *valueHandle) Flush(ctx context.Context) error { return h.flush(ctx, false) }

// flush commits what was written; what was only truncated if all is to be.
func (h *valueHandle) flush(ctx context.Context, all bool) error {
	if h.w.row.Kind != Ctl {
		ctx = context.WithoutCancel(ctx)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.wrote || h.cut && (h.ever || all) {
		return h.fs.fail(h.w, "closing", h.commitLocked(ctx))
	}
	return nil
}

// Fsync implements vnode.Fsyncer: it commits, durably, what was written or
// truncated.
func (h *valueHandle) Fsync(ctx context.Context, _ bool) error { return h.flush(ctx, true) }

// forget drops what is not committed.
func (h *valueHandle) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wrote, h.cut = false, false
}

// Release implements vnode.Handle.
func (h *valueHandle) Release(ctx context.Context) error {
	if !h.writing {
		return nil
	}
	defer h.fs.dropWriter(h)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.wrote && !h.cut {
		return nil
	}
	if err := h.commitLocked(context.WithoutCancel(ctx)); err != nil {
		return h.fs.fail(h.w, "closing", err)
	}
	return nil
}

// fresh tells whether nothing was written to the handle yet.
func (h *valueHandle) fresh() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.ever
}

func (f *FS) addWriter(h *valueHandle) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writers[h.w] = append(f.writers[h.w], h)
}

func (f *FS) dropWriter(h *valueHandle) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(f.writers[h.w]), func(o *valueHandle) bool { return o == h })
	if len(left) == 0 {
		delete(f.writers, h.w)
		return
	}
	f.writers[h.w] = left
}

// writersOf returns the handles that w is open for writing with.
func (f *FS) writersOf(w where) []*valueHandle {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.writers[w])
}

// writing tells whether a file of the object is open for writing.
func (f *FS) writing(obj objKind, id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.writers {
		if w.row.obj == obj && w.id == id {
			return true
		}
	}
	return false
}

// truncate sets the size of a file without naming a handle. A shell's `>` may
// come as an OPEN and then this; so handles that were opened for writing and
// not written to are truncated, and commit in their turn. With none, it is
// truncate(2), and is committed now.
func (f *FS) truncate(ctx context.Context, p place, size uint64) error {
	if err := p.canWrite(); err != nil {
		return err
	}
	if p.row.Kind == Ctl {
		return nil
	}
	if p.row.Kind == Stream {
		return errTruncateStream(p, size)
	}
	any := false
	for _, h := range f.writersOf(p.where) {
		if !h.fresh() {
			continue
		}
		any = true
		if err := h.Truncate(ctx, size); err != nil {
			return err
		}
	}
	if any {
		return nil
	}
	h, err := p.openValue(ctx, os.O_RDWR)
	if err != nil {
		return err
	}
	vh, ok := h.(*valueHandle)
	if !ok {
		return syscall.EIO
	}
	if err := vh.Truncate(ctx, size); err != nil {
		return firstOf(err, vh.discard())
	}
	return vh.Release(ctx)
}

// discard lets go of a handle without a commit.
func (h *valueHandle) discard() error {
	h.fs.dropWriter(h)
	return nil
}
