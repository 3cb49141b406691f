package layertar

import (
	"errors"
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

// Size is the exact length of the stream in bytes; it reads the record.
func (r *SplitReader) Size() (int64, error) { return r.s.Size() }

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
	if err := r.s.load(); err != nil {
		return 0, err
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
		err = r.s.entryChanged(&e, "it is shorter than it was")
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
		return s.entryChanged(e, "its content is not what it was")
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
func (s *Split) changed(name, what string) error {
	return errno.New(errno.ErrDamaged, "%s in the layer's directory does not fit the record %s: %s", quote(clip(name)), s.base, what)
}

// entryChanged is changed for an entry of the index.
func (s *Split) entryChanged(e *splitEntry, what string) error {
	name, err := s.name(e)
	if err != nil {
		return err
	}
	return s.changed(name, what)
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
	if err != nil {
		return nil, s.openError(name, err)
	}
	st, err := f.Stat()
	if err == nil {
		err = s.fits(name, st.Mode().IsRegular(), st.Size(), e.size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
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
