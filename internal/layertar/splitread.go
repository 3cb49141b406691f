package layertar

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
)

// Reader returns the tar stream, with file content read from root, the
// layer's own directory, which stays the caller's and must stay open as long.
func (s *Split) Reader(root *os.File) *SplitReader { return &SplitReader{s: s, root: root} }

// SplitReader is a layer's tar stream, byte for byte as it was imported. It
// may be used by several goroutines.
type SplitReader struct {
	s    *Split
	root *os.File

	mu   sync.Mutex
	last *splitFile // guarded by mu; taken out while it is read
	pos  int64      // guarded by mu: the entry of the last read, where the next is looked for first
}

// splitFile is a file of the layer that is open at an entry.
type splitFile struct {
	entry int64
	f     *os.File
	next  int64 // the checksum holds for the bytes before
	crc   uint64
}

// Size is the exact length of the stream in bytes.
func (r *SplitReader) Size() int64 { return r.s.size }

// Close closes the file that the last ReadAt left open.
func (r *SplitReader) Close() error {
	r.mu.Lock()
	l := r.last
	r.last = nil
	r.mu.Unlock()
	if l == nil {
		return nil
	}
	return l.f.Close()
}

// ReadAt reads at any offset. A file that is missing or of another size is
// ErrDamaged; so is one whose checksum differs, where reads went through it
// from its beginning to its end.
func (r *SplitReader) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errno.New(errno.ErrBadValue, "a tar stream cannot be read at the offset %d", off)
	}
	done := 0
	for done < len(b) {
		if off >= r.s.size {
			return done, io.EOF
		}
		n, err := r.part(b[done:], off)
		done += n
		off += int64(n)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// part reads from the one entry that holds off.
func (r *SplitReader) part(b []byte, off int64) (int, error) {
	i, e, err := r.locate(off)
	if err != nil {
		return 0, err
	}
	in := off - e.start
	if int64(len(b)) > e.size-in {
		b = b[:e.size-in]
	}
	if e.name == 0 {
		n, err := r.s.data.ReadAt(b, e.where+in)
		if n == len(b) {
			err = nil
		}
		return n, err
	}
	l, err := r.take(i, &e)
	if err != nil {
		return 0, err
	}
	n, err := l.f.ReadAt(b, in)
	if n == len(b) {
		err = nil
	} else if err == io.EOF { //nolint:errorlint // os.File returns it bare
		err = r.s.changed(&e, "it is shorter than it was")
	}
	if err == nil {
		err = l.check(r.s, &e, b, in)
	}
	return n, errors.Join(err, r.give(l))
}

// check carries the checksum on through sequential reads.
func (l *splitFile) check(s *Split, e *splitEntry, b []byte, in int64) error {
	if in == 0 {
		l.next, l.crc = 0, 0
	}
	if in != l.next {
		l.next = -1
		return nil
	}
	l.crc = crcUpdate(l.crc, b)
	l.next += int64(len(b))
	if l.next == e.size && l.crc != e.crc {
		return s.changed(e, "its content is not what it was")
	}
	return nil
}

func (r *SplitReader) locate(off int64) (int64, splitEntry, error) {
	r.mu.Lock()
	guess := r.pos
	r.mu.Unlock()
	for i := guess; i < min(guess+2, r.s.n); i++ {
		e, err := r.s.entry(i)
		if err != nil {
			return 0, e, err
		}
		if off >= e.start && off < e.start+e.size {
			return i, e, r.setPos(i)
		}
	}
	i, err := r.s.find(off)
	if err != nil {
		return 0, splitEntry{}, err
	}
	e, err := r.s.entry(i)
	return i, e, errors.Join(err, r.setPos(i))
}

func (r *SplitReader) setPos(i int64) error {
	r.mu.Lock()
	r.pos = i
	r.mu.Unlock()
	return nil
}

// take returns the entry's file, the one left open if it is that.
func (r *SplitReader) take(i int64, e *splitEntry) (*splitFile, error) {
	r.mu.Lock()
	l := r.last
	r.last = nil
	r.mu.Unlock()
	if l != nil && l.entry == i {
		return l, nil
	}
	if l != nil {
		if err := l.f.Close(); err != nil {
			return nil, err
		}
	}
	root, err := safefs.FromFile(r.root)
	if err != nil {
		return nil, err
	}
	f, err := r.s.open(root, e)
	if err = errors.Join(err, root.Close()); err != nil {
		return nil, err
	}
	return &splitFile{entry: i, f: f}, nil
}

// give leaves a file open for the next read.
func (r *SplitReader) give(l *splitFile) error {
	r.mu.Lock()
	old := r.last
	r.last = l
	r.mu.Unlock()
	if old == nil {
		return nil
	}
	return old.f.Close()
}

// changed is the sentence for a layer whose content no longer fits its record.
func (s *Split) changed(e *splitEntry, what string) error {
	name, err := s.name(e)
	if err != nil {
		return err
	}
	return errno.New(errno.ErrDamaged, "%s in the layer's directory does not fit the record %s: %s", quote(clip(name)), s.base, what)
}

func (s *Split) name(e *splitEntry) (string, error) {
	b := make([]byte, e.name)
	if _, err := s.data.ReadAt(b, e.where); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return string(b), nil
}

// open opens an entry's file beneath root: symlinks in its path as the import
// followed them, none at its end, nothing but a regular file of the right size.
func (s *Split) open(root *safefs.Dir, e *splitEntry) (*os.File, error) {
	name, err := s.name(e)
	if err != nil {
		return nil, err
	}
	f, err := openContent(root, cleanName(name))
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENXIO):
		return nil, s.changed(e, "it is gone or is no file any more")
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", quote(clip(name)), err)
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case !st.Mode().IsRegular():
		err = s.changed(e, "it is no regular file any more")
	case st.Size() != e.size:
		err = s.changed(e, fmt.Sprintf("it has %d bytes in place of %d", st.Size(), e.size))
	default:
		return f, nil
	}
	return nil, errors.Join(err, f.Close())
}

func openContent(root *safefs.Dir, clean string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW
	if clean == "" {
		return nil, syscall.ENOENT
	}
	f, err := root.OpenAt(clean, flags, 0, safefs.NoSymlinks)
	if !errors.Is(err, syscall.ELOOP) {
		return f, err
	}
	dir, base := splitName(clean)
	if dir == "" {
		return nil, err
	}
	d, err := root.OpenDirAt(dir, safefs.InRoot)
	if err != nil {
		return nil, err
	}
	f, err = d.Open(base, flags, 0)
	if err = errors.Join(err, d.Close()); err != nil {
		return nil, err
	}
	return f, nil
}

// WriteTo writes the whole stream and checks each file's CRC-64; a mismatch
// is ErrDamaged.
func (r *SplitReader) WriteTo(w io.Writer) (int64, error) {
	return r.Copy(context.Background(), w)
}

// Copy is WriteTo with a context.
func (r *SplitReader) Copy(ctx context.Context, w io.Writer) (n int64, err error) {
	root, err := safefs.FromFile(r.root)
	if err != nil {
		return 0, err
	}
	c := splitCopy{s: r.s, root: root, out: bufio.NewWriterSize(w, flowBlock), buf: make([]byte, flowBlock)}
	for i := int64(0); i < r.s.n && err == nil; i++ {
		if err = context.Cause(ctx); err == nil {
			err = c.entry(i)
		}
	}
	if err == nil {
		err = c.out.Flush()
	}
	return c.n - int64(c.out.Buffered()), errors.Join(err, root.Close())
}

type splitCopy struct {
	s    *Split
	root *safefs.Dir
	out  *bufio.Writer
	buf  []byte
	n    int64
}

func (c *splitCopy) entry(i int64) error {
	e, err := c.s.entry(i)
	if err != nil {
		return err
	}
	if e.name == 0 {
		n, err := io.CopyBuffer(onlyWriter{c.out}, io.NewSectionReader(&c.s.data, e.where, e.size), c.buf)
		c.n += n
		return err
	}
	f, err := c.s.open(c.root, &e)
	if err != nil {
		return err
	}
	return errors.Join(c.content(f, &e), f.Close())
}

// onlyWriter hides bufio.Writer's ReadFrom, which would skip our buffer.
type onlyWriter struct{ io.Writer }

func (c *splitCopy) content(f *os.File, e *splitEntry) error {
	var crc uint64
	for left := e.size; left > 0; {
		n, err := f.Read(c.buf[:min(int64(len(c.buf)), left)])
		if n == 0 && err == io.EOF { //nolint:errorlint // os.File returns it bare
			return c.s.changed(e, "it is shorter than it was")
		}
		if n == 0 && err != nil {
			return err
		}
		crc = crcUpdate(crc, c.buf[:n])
		left -= int64(n)
		m, err := c.out.Write(c.buf[:n])
		c.n += int64(m)
		if err != nil {
			return err
		}
	}
	if crc != e.crc {
		return c.s.changed(e, "its content is not what it was")
	}
	return nil
}
