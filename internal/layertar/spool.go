package layertar

import (
	"errors"
	"io"
	"os"
)

// spoolMemory is how much of a spool stays in memory before it moves to an
// unlinked temporary file.
const spoolMemory = 1 << 20

// spool is an append-only run of bytes that can be read at any offset. Appends
// come from one goroutine, before any read.
type spool struct {
	mem  []byte
	file *os.File
	size int64
}

func (s *spool) append(b []byte) error {
	s.mem = append(s.mem, b...)
	s.size += int64(len(b))
	if len(s.mem) < spoolMemory {
		return nil
	}
	return s.spill()
}

func (s *spool) spill() error {
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

// seal ends the appending.
func (s *spool) seal() error {
	if s.file == nil {
		s.mem = append([]byte(nil), s.mem...)
		return nil
	}
	err := s.spill()
	s.mem = nil
	return err
}

// ReadAt reads like io.ReaderAt.
func (s *spool) ReadAt(b []byte, off int64) (int, error) {
	if s.file != nil {
		return s.file.ReadAt(b, off)
	}
	if off < 0 || off >= int64(len(s.mem)) {
		return 0, io.EOF
	}
	n := copy(b, s.mem[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (s *spool) close() error {
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
