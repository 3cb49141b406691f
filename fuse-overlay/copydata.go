package fuseoverlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// copyChunk is how much is copied between looks at whether to go on, and
// patience how long a copy goes on whatever signals its caller gets.
const (
	copyChunk = 8 << 20
	patience  = 2 * time.Second
)

// interrupted returns EINTR for a copy since start whose caller was interrupted.
func interrupted(ctx context.Context, start time.Time) error {
	a, ok := ctx.(asked)
	if !ok || time.Since(start) < patience {
		return ctx.Err()
	}
	select {
	case <-a.cancel:
		return syscall.EINTR
	default:
		return nil
	}
}

// copyData copies the first size bytes of the file at from into to, which is
// empty: as a reflink where the filesystem can and all is wanted, else by the
// extents that hold data, so that holes stay holes.
func (o *Overlay) copyData(ctx context.Context, from spot, to *os.File, size int64) (err error) {
	if size == 0 {
		return nil
	}
	fd, err := openLower(from)
	if err != nil {
		return err
	}
	src := os.NewFile(uintptr(fd), from.name)
	defer func() { err = errors.Join(err, src.Close()) }()
	st, err := src.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return from.stale()
	}
	size = min(size, st.Size())
	out, start := int(to.Fd()), time.Now()
	if size == st.Size() && unix.IoctlFileClone(out, fd) == nil {
		return nil
	}
	if err := to.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		begin, end, err := extent(fd, at, size)
		if err != nil {
			return err
		}
		for begin < end {
			if err := interrupted(ctx, start); err != nil {
				return err
			}
			n, err := copyRange(src, to, begin, min(end-begin, copyChunk))
			if err != nil {
				return fmt.Errorf("copy %q: %w", from.name, err)
			}
			begin += n
		}
		at = end
	}
	return nil
}

// extent returns the next stretch of data at or after at, cut at size; empty
// at size when there is none. Where holes are not known, all is data.
func extent(fd int, at, size int64) (begin, end int64, err error) {
	begin, err = unix.Seek(fd, at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, size, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return at, size, nil
	case err != nil:
		return 0, 0, err
	}
	if begin >= size {
		return size, size, nil
	}
	end, err = unix.Seek(fd, begin, unix.SEEK_HOLE)
	if err != nil {
		return begin, size, nil
	}
	return begin, min(end, size), nil
}

// copyRange copies up to n bytes at off. A source that ends early was cut
// meanwhile: zeros are left, and an error.
func copyRange(src, to *os.File, off, n int64) (int64, error) {
	from, dest := off, off
	k, err := unix.CopyFileRange(int(src.Fd()), &from, int(to.Fd()), &dest, int(n), 0)
	switch {
	case err == nil && k > 0:
		return int64(k), nil
	case err == nil:
		return 0, io.ErrUnexpectedEOF
	case errors.Is(err, syscall.EINTR):
		return 0, nil
	case !cannotCopyRange(err):
		return 0, err
	}
	buf := make([]byte, min(n, 1<<20))
	m, err := src.ReadAt(buf, off)
	if m == 0 {
		return 0, err
	}
	w, err := to.WriteAt(buf[:m], off)
	return int64(w), err
}

func cannotCopyRange(err error) bool {
	for _, e := range []syscall.Errno{syscall.EXDEV, syscall.EINVAL, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EPERM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
