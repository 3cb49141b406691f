package layertar

import (
	"encoding/binary"
)

// frameTracker follows the compressed bytes of a pushed stream so far that it
// can tell whether they could end here. For a format whose frames state their
// lengths (zstd) it walks them; for bzip2 it looks at the last bytes; gzip and
// xz are left to the decoder, which knows.
type frameTracker struct {
	kind  Compression
	known bool
	head  []byte
	total int64
	tail  []byte // the last bytes, tailLen at most
	zstd  zstdWalk
}

const tailLen = 64

// feed takes the next bytes as they arrive.
func (t *frameTracker) feed(b []byte) {
	t.total += int64(len(b))
	if !t.known {
		t.head = append(t.head, b...)
		if len(t.head) < sniffLen {
			return
		}
		b = t.sniffed()
	}
	t.follow(b)
}

func (t *frameTracker) sniffed() []byte {
	t.known, t.kind = true, Detect(t.head)
	b := t.head
	t.head = nil
	return b
}

func (t *frameTracker) follow(b []byte) {
	switch t.kind {
	case Zstd:
		t.zstd.feed(b)
	case Bzip2:
		if len(b) > tailLen {
			b = b[len(b)-tailLen:]
		}
		t.tail = append(t.tail, b...)
		if n := len(t.tail); n > tailLen {
			t.tail = append(t.tail[:0], t.tail[n-tailLen:]...)
		}
	case None, Gzip, Xz:
	}
}

// complete tells whether the stream could end after the bytes that were fed.
// between is the decoder's own answer, for gzip and xz.
func (t *frameTracker) complete(between bool) bool {
	if !t.known {
		return t.total == 0
	}
	switch t.kind {
	case None:
		return true
	case Gzip, Xz:
		return between
	case Zstd:
		return t.zstd.atEnd()
	case Bzip2:
		return bzip2Ends(t.tail)
	}
	return false
}

// bzip2Ends looks for the end-of-stream mark: 48 bits, 32 bits of checksum,
// and up to 7 bits that fill the last byte.
func bzip2Ends(tail []byte) bool {
	const mark = 0x177245385090
	if len(tail) < 11 {
		return false
	}
	tail = tail[len(tail)-11:]
	var hi uint64 // the first 7 of the last 11 bytes: 56 bits that hold the mark
	for _, c := range tail[:7] {
		hi = hi<<8 | uint64(c)
	}
	for fill := range 8 {
		// The mark ends 32+fill bits before the end; hi ends 32 bits before it.
		if hi>>fill&(1<<48-1) == mark {
			return true
		}
	}
	return false
}

// zstdWalk walks zstd frames (RFC 8878) without decoding them.
type zstdWalk struct {
	need  int    // bytes wanted in buf before step can go on
	buf   []byte // of a magic, frame header or block header
	skip  int64  // bytes to pass over
	state zstdState
	sum   bool // the frame ends with a checksum
	bad   bool

	// frame, if set, is told where the content of each skippable frame begins
	// and its size, and -1 in its place for one of data; skipped gets the content
	// of those.
	frame   func(at, size int64)
	skipped func(b []byte)
	pos     int64 // of the next byte
	inside  bool  // what is passed over is a skippable frame's
}

type zstdState uint8

const (
	zstdMagic zstdState = iota // between frames
	zstdSkipSize
	zstdDescriptor
	zstdBlock
)

func (w *zstdWalk) feed(b []byte) {
	if w.need == 0 {
		w.need = 4
	}
	for len(b) > 0 && !w.bad {
		if w.skip > 0 {
			n := min(w.skip, int64(len(b)))
			if w.inside && w.skipped != nil {
				w.skipped(b[:n])
			}
			w.skip -= n
			w.pos += n
			b = b[n:]
			continue
		}
		n := min(w.need-len(w.buf), len(b))
		w.buf = append(w.buf, b[:n]...)
		w.pos += int64(n)
		b = b[n:]
		if len(w.buf) == w.need {
			w.step(w.buf)
			w.buf = w.buf[:0]
		}
	}
}

func (w *zstdWalk) atEnd() bool {
	return !w.bad && w.skip == 0 && w.state == zstdMagic && len(w.buf) == 0
}

func (w *zstdWalk) step(b []byte) {
	switch w.state {
	case zstdMagic:
		w.inside = false
		switch {
		case string(b) == "\x28\xb5\x2f\xfd":
			w.state, w.need = zstdDescriptor, 1
			if w.frame != nil {
				w.frame(w.pos, -1)
			}
		case b[0]&0xf0 == 0x50 && string(b[1:]) == zstdSkippableHigh:
			w.state, w.need = zstdSkipSize, 4
		default:
			w.bad = true
		}
	case zstdSkipSize:
		w.skip, w.state, w.need, w.inside = int64(binary.LittleEndian.Uint32(b)), zstdMagic, 4, true
		if w.frame != nil {
			w.frame(w.pos, w.skip)
		}
	case zstdDescriptor:
		w.sum = b[0]&4 != 0
		single := b[0]&0x20 != 0
		n := [4]int{0, 1, 2, 4}[b[0]&3] + [4]int{0, 2, 4, 8}[b[0]>>6]
		if !single {
			n++
		} else if b[0]>>6 == 0 {
			n++
		}
		w.state, w.need = zstdBlock, 3
		if n > 0 {
			w.skip = int64(n)
		}
	case zstdBlock:
		w.block(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16)
	}
}

func (w *zstdWalk) block(h uint32) {
	size := int64(h >> 3)
	if h>>1&3 == 1 { // RLE: one byte stands for size
		size = 1
	}
	w.skip = size
	if h&1 == 1 { // the last block
		if w.sum {
			w.skip += 4
		}
		w.state, w.need = zstdMagic, 4
	}
}
