package fuseoverlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// pipedFrom is from how many bytes on a stretch of data is read by one and
	// written by another, in pieces of chunkSize, of which there are chunkCount.
	pipedFrom, chunkSize, chunkCount = 4 << 20, 512 << 10, 4
	// begunEach is how much is copied before the disk begins to write it.
	begunEach = 8 << 20
	// mostPiped is how many copies may be made by two at once, each with its buffers.
	mostPiped = 4
)

// chunk is some of a file, or why there is no more.
type chunk struct {
	data []byte
	err  error
}

// pipes tells whether n bytes of src are copied by two, who take turns with a few
// buffers: within one ext4, where copy_file_range(2) would copy pages too, and looks
// for room at each, and only with a processor for each. (On tmpfs it takes as long.)
// A layer elsewhere may not answer: who is killed would wait for what is read ahead.
// Where it says yes, piped is to be told when the copy has ended.
func (w *work) pipes(src *source, n int64) bool {
	if n < pipedFrom || !w.ext4 || src.st.Dev != w.dev || runtime.NumCPU() < 2 {
		return false
	}
	if w.piping.Add(1) > mostPiped {
		w.piped()
		return false
	}
	return true
}

// piped says that a copy by two has ended.
func (w *work) piped() { w.piping.Add(-1) }

// reserve takes the room for n bytes at off in the file open as fd at once, where
// that makes writing them cheaper: on ext4, which else looks for room at each page.
func (w *work) reserve(fd int, off, n int64) error {
	if !w.ext4 {
		return nil
	}
	err := retryEINTR(func() error { return unix.Fallocate(fd, 0, off, n) })
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("reserve %d bytes: %w", n, err)
	}
	return nil // a file that cannot have room before it is written: writing tells what fails
}

// copyPiped copies the bytes from begin to end of the file open as src to the same
// place in the one open as out, and tells wrote how far it came. It returns when
// nothing uses src any more.
func (o *Overlay) copyPiped(ctx context.Context, src, out int, begin, end int64, wrote func(to int64)) (err error) {
	if err := o.work.reserve(out, begin, end-begin); err != nil {
		return err
	}
	full, free := make(chan chunk, chunkCount), make(chan []byte, chunkCount)
	for range chunkCount {
		free <- make([]byte, chunkSize)
	}
	go o.readChunks(src, begin, end, free, full)
	defer func() {
		close(free)
		for range full { // until the reader has ended
		}
	}()
	for p := range full {
		if p.err == nil {
			p.err = stopped(ctx)
		}
		if p.err == nil {
			p.err = writeAll(out, p.data, begin)
		}
		if p.err != nil {
			return p.err
		}
		begin += int64(len(p.data))
		wrote(begin)
		free <- p.data[:chunkSize]
	}
	return nil
}

// readChunks reads a file from begin to end into buffers that it finds in free,
// until that is closed, and closes full.
func (o *Overlay) readChunks(fd int, begin, end int64, free <-chan []byte, full chan<- chunk) {
	defer close(full)
	defer func() {
		if p := recover(); p != nil {
			full <- chunk{err: o.panicked(p)}
		}
	}()
	for buf := range free {
		if begin == end {
			return
		}
		var k int
		err := retryEINTR(func() (err error) {
			k, err = unix.Pread(fd, buf[:min(end-begin, chunkSize)], begin)
			return err
		})
		if err == nil && k == 0 {
			err = io.ErrUnexpectedEOF // cut meanwhile
		}
		full <- chunk{data: buf[:max(k, 0)], err: err}
		if err != nil {
			return
		}
		begin += int64(k)
	}
}

// writeAll writes data at off.
func writeAll(fd int, data []byte, off int64) error {
	for len(data) > 0 {
		k, err := unix.Pwrite(fd, data, off)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		data, off = data[k:], off+int64(k)
	}
	return nil
}

// begun has the disk write a copy while the rest of it is made, of one that is to
// be settled: what is left to wait for then is the end.
type begun struct {
	work *work // nil: nothing is to be written yet
	fd   int
	from int64 // up to where it is begun
}

// wrote is told up to where data was written.
func (b *begun) wrote(to int64) {
	if b.work != nil && to-b.from >= begunEach {
		b.work.begin(b.fd, b.from, to-b.from)
		b.from = to
	}
}
