package fuseoverlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
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

// chunk is the next n bytes of a file from off on, to be read into buf, or read, or
// why they are not.
type chunk struct {
	buf    []byte
	off, n int64
	err    error
}

// askedLately is for how many chunks one copies alone after something was asked of
// the mount: some milliseconds.
const askedLately = 16

// manners tells a copy whether to leave a processor to others.
type manners struct {
	asked *atomic.Uint64
	seen  uint64
	left  int
}

// alone is asked before each chunk.
func (m *manners) alone() bool {
	if k := m.asked.Load(); k != m.seen {
		m.seen, m.left = k, askedLately
	} else if m.left > 0 {
		m.left--
	}
	return m.left > 0
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
// nothing uses src any more. While something else is asked of the mount, one copies
// alone: with two at work, what answers would have no processor of its own.
func (o *Overlay) copyPiped(ctx context.Context, src, out int, begin, end int64, wrote func(to int64)) (err error) {
	if err := o.work.reserve(out, begin, end-begin); err != nil {
		return err
	}
	full, free := make(chan chunk, chunkCount), make(chan chunk, chunkCount)
	bufs := make([][]byte, chunkCount)
	for i := range bufs {
		bufs[i] = make([]byte, chunkSize)
	}
	go o.readChunks(src, free, full)
	defer func() {
		close(free)
		for range full { // until the reader has ended
		}
	}()
	m := manners{asked: &o.asked, seen: o.asked.Load()}
	for next := begin; begin < end; {
		for alone := m.alone(); next < end && len(bufs) > 0 && (!alone || len(bufs) == chunkCount); {
			last := len(bufs) - 1
			c := chunk{buf: bufs[last], off: next, n: min(end-next, chunkSize)}
			bufs, next = bufs[:last], next+c.n
			if alone {
				full <- c.read(src)
			} else {
				free <- c
			}
		}
		c := <-full
		if c.err == nil {
			c.err = stopped(ctx)
		}
		if c.err == nil {
			c.err = writeAll(out, c.buf[:c.n], c.off)
		}
		if c.err != nil {
			return c.err
		}
		bufs = append(bufs, c.buf)
		begin += c.n
		wrote(begin)
	}
	return nil
}

// readChunks reads what it finds in free, until that is closed, and closes full.
func (o *Overlay) readChunks(fd int, free <-chan chunk, full chan<- chunk) {
	defer close(full)
	defer func() {
		if p := recover(); p != nil {
			full <- chunk{err: o.panicked(p)}
		}
	}()
	for c := range free {
		full <- c.read(fd)
	}
}

// read reads it from the file open as fd.
func (c chunk) read(fd int) chunk {
	for have := int64(0); have < c.n; {
		k, err := unix.Pread(fd, c.buf[have:c.n], c.off+have)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			c.err = err
			return c
		case k == 0:
			c.err = io.ErrUnexpectedEOF // cut meanwhile
			return c
		default:
			have += int64(k)
		}
	}
	return c
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
