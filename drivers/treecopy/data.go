//go:build linux && !portable

package treecopy

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// step is the most that is copied between two looks at the context, in bytes.
const step = 64 << 20

// data copies size bytes of s into the empty file d.
func (c *copier) data(s, d *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	if !c.noClone {
		err := unix.IoctlFileClone(int(d.Fd()), int(s.Fd()))
		if err == nil {
			return nil
		}
		c.noClone = true
	}
	for off := int64(0); off < size; {
		start, end, err := extent(s, off, size)
		if err != nil {
			return err
		}
		if err := c.span(s, d, start, end); err != nil {
			return err
		}
		off = end
	}
	if err := d.Truncate(size); err != nil {
		return fmt.Errorf("set size: %w", err)
	}
	return nil
}

// extent returns the next stretch of data at or after off; start == end ==
// size when there is none.
func extent(s *os.File, off, size int64) (start, end int64, err error) {
	start, err = unix.Seek(int(s.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, size, nil
	}
	if errors.Is(err, unix.EINVAL) {
		return off, size, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("seek data: %w", err)
	}
	end, err = unix.Seek(int(s.Fd()), start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, fmt.Errorf("seek hole: %w", err)
	}
	return min(start, size), min(end, size), nil
}

func (c *copier) span(s, d *os.File, start, end int64) error {
	for off := start; off < end; {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		n, err := c.piece(s, d, off, min(step, end-off))
		if err != nil {
			return err
		}
		if n == 0 {
			return nil // the file became shorter
		}
		off += n
	}
	return nil
}

func (c *copier) piece(s, d *os.File, off, length int64) (int64, error) {
	if !c.noRange {
		roff, woff := off, off
		n, err := unix.CopyFileRange(int(s.Fd()), &roff, int(d.Fd()), &woff, int(length), 0)
		if err == nil {
			return int64(n), nil
		}
		if !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EOPNOTSUPP) {
			return 0, fmt.Errorf("copy: %w", err)
		}
		c.noRange = true
	}
	n, err := io.Copy(io.NewOffsetWriter(d, off), io.NewSectionReader(s, off, length))
	if err != nil {
		return n, fmt.Errorf("copy: %w", err)
	}
	return n, nil
}
