package spill

import (
	"errors"
	"io"
	"os"
)

const (
	// windowMemory is how many of a large Window's last bytes are always in memory.
	windowMemory = 4 << 20
	// windowSlack is how many more every window holds before it moves the older ones
	// to its file, or forgets them.
	windowSlack = 2 << 20
	// windowWhole is the largest window that is held in memory whole.
	windowWhole = 4 << 20
	// pageSize and pages are of the cache of what is read back.
	pageSize = 4 << 10
	pages    = 1 << 9
)

// Window is the last bytes of a run that only grows, as a decompressor looks back
// at them: 8 MiB in memory at the most, whatever its size, and where that is over
// 4 MiB the older ones in a file of that size.
type Window struct {
	size int64
	near int // of the last bytes are always in memory, a multiple of pageSize
	buf  []byte
	base int64 // of buf[0] in the run, a multiple of pageSize; what is before it is in file
	file *os.File
	ring int64 // bytes of file, after which it begins again: a multiple of pageSize

	cache []byte
	holds []int64 // the page of the run that is in each place of cache, and 1; 0 for none
}

// NewWindow returns an empty window that looks back size bytes.
func NewWindow(size int64) *Window {
	ring := (size+pageSize-1)/pageSize*pageSize + pageSize
	near := windowMemory
	if size <= windowWhole {
		near = int(ring) // a page more, since what is moved is whole pages
	}
	return &Window{size: size, near: near, ring: ring}
}

// Len is how many bytes of the run can be looked back at.
func (w *Window) Len() int64 { return min(w.size, w.base+int64(len(w.buf))) }

// Last is the run's last n bytes, which are the window's and in memory: n is at
// most the room that was asked for last.
func (w *Window) Last(n int) []byte { return w.buf[len(w.buf)-n:] }

// Room makes place for n bytes (windowSlack at most) of Append and Repeat.
func (w *Window) Room(n int) error {
	full := w.near + windowSlack
	switch want := len(w.buf) + n; {
	case want <= cap(w.buf):
		return nil
	case want <= full:
		grown := make([]byte, len(w.buf), min(full, max(want, 8*cap(w.buf))))
		copy(grown, w.buf)
		w.buf = grown
		return nil
	}
	old := (len(w.buf) - w.near + pageSize - 1) / pageSize * pageSize
	if w.size > windowWhole {
		if err := w.keep(w.buf[:old]); err != nil {
			return err
		}
	}
	w.base += int64(old)
	w.buf = w.buf[:copy(w.buf, w.buf[old:])]
	return w.Room(n)
}

// keep writes b, which begins at w.base, to the file.
func (w *Window) keep(b []byte) (err error) {
	if w.file == nil {
		if w.file, err = unlinkedTemp(); err != nil {
			return err
		}
	}
	for at := w.base; len(b) > 0; {
		n := min(int64(len(b)), w.ring-at%w.ring)
		if _, err := w.file.WriteAt(b[:n], at%w.ring); err != nil {
			return err
		}
		b, at = b[n:], at+n
	}
	return nil
}

// Memory is the run's last bytes as far as they are in memory, at whose end is a
// capacity of the room that was asked for. It is valid until Room is asked for
// more. Its first byte is at a multiple of 4096 in the run.
func (w *Window) Memory() []byte { return w.buf }

// Grow adds n bytes, for which there is room, and which the caller has written
// behind those of Memory.
func (w *Window) Grow(n int) { w.buf = w.buf[:len(w.buf)+n] }

// Byte is the byte off bytes before the run's end; off is from 1 to Len.
func (w *Window) Byte(off int64) (byte, error) {
	from := w.base + int64(len(w.buf)) - off
	if from >= w.base {
		return w.buf[from-w.base], nil
	}
	page, err := w.page(from / pageSize)
	if err != nil {
		return 0, err
	}
	return page[from%pageSize], nil
}

// Append adds b, for which there is room.
func (w *Window) Append(b []byte) { w.buf = append(w.buf, b...) }

// Repeat adds n bytes, for which there is room, each the one that is off bytes
// before it; off is from 1 to Len.
func (w *Window) Repeat(off int64, n int) error {
	for from := w.base + int64(len(w.buf)) - off; from < w.base && n > 0; {
		page, err := w.page(from / pageSize)
		if err != nil {
			return err
		}
		got := page[from%pageSize:]
		got = got[:min(len(got), n)]
		w.buf = append(w.buf, got...)
		from, n = from+int64(len(got)), n-len(got)
	}
	start := len(w.buf)
	w.buf = w.buf[:start+n]
	src, dst := w.buf[start-int(min(off, int64(start))):start], w.buf[start:]
	for len(dst) > len(src) && len(src) > 0 { // what has been repeated is repeated
		copy(dst, src)
		dst = dst[len(src):]
		src = w.buf[start-int(off) : len(w.buf)-len(dst)]
	}
	copy(dst, src)
	return nil
}

// page is a page of what is in the file.
func (w *Window) page(p int64) ([]byte, error) {
	if w.cache == nil {
		w.cache, w.holds = make([]byte, pages*pageSize), make([]int64, pages)
	}
	at := (p ^ p/pages) % pages
	b := w.cache[at*pageSize : (at+1)*pageSize]
	if w.holds[at] == p+1 {
		return b, nil
	}
	w.holds[at] = 0
	if n, err := w.file.ReadAt(b, p*pageSize%w.ring); n < len(b) {
		return nil, errors.Join(io.ErrUnexpectedEOF, err)
	}
	w.holds[at] = p + 1
	return b, nil
}

// Reset empties the window, which looks back size bytes from now on, and keeps
// its memory.
func (w *Window) Reset(size int64) error {
	err := w.Close()
	clear(w.holds)
	fresh := NewWindow(size)
	fresh.buf, fresh.cache, fresh.holds = w.buf[:0], w.cache, w.holds
	*w = *fresh
	return err
}

// Close gives the file back, if there is one.
func (w *Window) Close() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}
