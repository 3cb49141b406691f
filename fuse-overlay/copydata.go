package fuseoverlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// copyChunk is how much is copied between looks at whether to go on.
const copyChunk = 8 << 20

// source is a regular file of a layer whose content is copied.
type source struct {
	ref  *safefs.Ref
	st   safefs.Stat
	name string
}

// openSource opens what is at s, which is to be a regular file.
func openSource(s spot) (*source, error) {
	fd, err := openLower(s)
	if err != nil {
		return nil, err
	}
	src := &source{ref: safefs.OpenedRef(fd), name: s.name}
	if src.st, err = src.ref.Stat(); err == nil && src.st.Type() != unix.S_IFREG {
		err = s.stale()
	}
	if err != nil {
		src.close()
		return nil, err
	}
	return src, nil
}

// close gives the descriptor back, through which nothing was written.
func (s *source) close() { _ = s.ref.Close() }

// copyData copies the first size bytes of src into the file open as out, which
// is empty: as a reflink where the filesystem can and all is wanted, else whole
// or, where there are holes, by the extents that hold data, so that holes stay
// holes.
//
// Who asks may be a thread that runs only when nothing else does (package
// fusewire): much is copied by another.
func (o *Overlay) copyData(ctx context.Context, src *source, out int, size int64) error {
	const much = 1 << 20
	if min(size, int64(src.st.Size)) < much {
		return o.copyDataHere(ctx, src, out, size)
	}
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() {
			if p := recover(); p != nil {
				err = o.panicked(p)
			}
			done <- err
		}()
		err = o.copyDataHere(ctx, src, out, size)
	}()
	return <-done
}

func (o *Overlay) copyDataHere(ctx context.Context, src *source, out int, size int64) error {
	size = min(size, int64(src.st.Size))
	if size == int64(src.st.Size) && o.clone(src, out) {
		return nil
	}
	dense := int64(src.st.Blocks)*512 >= int64(src.st.Size)
	if !dense {
		if err := retryEINTR(func() error { return unix.Ftruncate(out, size) }); err != nil {
			return err
		}
	}
	b := begun{fd: out}
	if o.settling() {
		b.work = o.work
	}
	for at := int64(0); at < size; {
		begin, end := at, size
		if !dense {
			var err error
			if begin, end, err = extent(src.ref.Fd(), at, size); err != nil {
				return err
			}
		}
		if err := o.copyStretch(ctx, src, out, begin, end, b.wrote); err != nil {
			return fmt.Errorf("copy %q: %w", src.name, err)
		}
		at = end
	}
	return nil
}

// copyStretch copies the bytes from begin to end, all of which are data, and tells
// wrote how far it came.
func (o *Overlay) copyStretch(ctx context.Context, src *source, out int, begin, end int64, wrote func(to int64)) error {
	if o.work.pipes(src, end-begin) {
		defer o.work.piped()
		return o.copyPiped(ctx, src.ref.Fd(), out, begin, end, wrote)
	}
	for begin < end {
		if err := stopped(ctx); err != nil {
			return err
		}
		n, err := copyRange(src.ref.Fd(), out, begin, min(end-begin, copyChunk))
		if err != nil {
			return err
		}
		begin += n
		wrote(begin)
	}
	return nil
}

// clone makes out a reflink of src. What a pair of filesystems cannot do is
// not tried twice.
func (o *Overlay) clone(src *source, out int) bool {
	if _, never := o.uncloned.Load(src.st.Dev); never {
		return false
	}
	err := unix.IoctlFileClone(out, src.ref.Fd())
	for _, e := range []syscall.Errno{syscall.EOPNOTSUPP, syscall.EXDEV, syscall.ENOTTY} {
		if errors.Is(err, e) {
			o.uncloned.Store(src.st.Dev, nil)
		}
	}
	return err == nil
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
func copyRange(src, to int, off, n int64) (int64, error) {
	from, dest := off, off
	k, err := unix.CopyFileRange(src, &from, to, &dest, int(n), 0)
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
	m, err := unix.Pread(src, buf, off)
	switch {
	case errors.Is(err, syscall.EINTR):
		return 0, nil
	case err != nil:
		return 0, err
	case m == 0:
		return 0, io.ErrUnexpectedEOF
	}
	w, err := unix.Pwrite(to, buf[:m], off)
	if errors.Is(err, syscall.EINTR) {
		return 0, nil
	}
	return int64(max(w, 0)), err
}

func cannotCopyRange(err error) bool {
	for _, e := range []syscall.Errno{syscall.EXDEV, syscall.EINVAL, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EPERM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
