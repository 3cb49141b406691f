package spill

import (
	"errors"
	"io"
	"os"
)

// spoolMemory is how much of a Spool stays in memory before it moves to an
// unlinked temporary file.
const spoolMemory = 1 << 20

// Spool is an append-only run of bytes that can be read at any offset. Appends
// come from one goroutine, and no read at the same time. The zero value is empty.
type Spool struct {
	mem  []byte
	file *os.File
	size int64
}

// Append adds b at the end.
func (s *Spool) Append(b []byte) error {
	s.mem = append(s.mem, b...)
	s.size += int64(len(b))
	if len(s.mem) < spoolMemory {
		return nil
	}
	return s.spill()
}

func (s *Spool) spill() error {
	if s.file == nil {
		f, err := unlinkedTemp()
		if err != nil {
			return err
		}
		s.file = f
	}
	_, err := s.file.Write(s.mem)
	s.mem = s.mem[:0]
	return err
}

// Seal ends the appending: less memory is kept.
func (s *Spool) Seal() error {
	if s.file == nil {
		s.mem = append([]byte(nil), s.mem...)
		return nil
	}
	err := s.spill()
	s.mem = nil
	return err
}

// Size is how many bytes were appended.
func (s *Spool) Size() int64 { return s.size }

// Spilled tells whether some of it is on disk.
func (s *Spool) Spilled() bool { return s.file != nil }

// ReadAt reads like io.ReaderAt.
func (s *Spool) ReadAt(b []byte, off int64) (n int, err error) {
	base := s.size - int64(len(s.mem)) // of what is in memory
	if off < 0 {
		return 0, io.EOF
	}
	if off < base {
		want := b[:min(int64(len(b)), base-off)]
		if n, err = s.file.ReadAt(want, off); n < len(want) {
			return n, err
		}
		off += int64(n)
	}
	if n == len(b) {
		return n, nil
	}
	n += copy(b[n:], s.mem[min(off-base, int64(len(s.mem))):])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// Close gives the file back, if there is one.
func (s *Spool) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// unlinkedTemp makes a temporary file that has no name any more.
func unlinkedTemp() (*os.File, error) {
	f, err := os.CreateTemp("", "plyfs-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
