package layertar

import (
	"errors"
	"io"

	"github.com/ulikunitz/xz"

	"github.com/plyfs/plyfs/internal/errno"
)

// xzStreams reads an xz file stream by stream. The library's reader goes on
// to the next stream before it gives the last bytes of the one before, and so
// waits on a pipe for bytes that never come; here it is shown one stream at a
// time, whose end xzWalk finds.
type xzStreams struct {
	d  *decoder
	zr *xz.Reader
	w  *xzWalk
}

// Read reads plain bytes, over all streams and the padding between them.
func (x *xzStreams) Read(b []byte) (int, error) {
	for {
		if x.zr == nil || x.d.between {
			if err := x.open(); err != nil {
				return 0, err
			}
		}
		n, err := x.zr.Read(b)
		if err == io.EOF { //nolint:errorlint // the library returns it bare at the end
			if !x.w.ended() {
				return n, io.ErrUnexpectedEOF
			}
			x.d.between, err = true, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// open passes over padding (zeros in groups of four) and starts the next
// stream; io.EOF when there is none.
func (x *xzStreams) open() error {
	for {
		c, err := x.d.in.Peek(1)
		if err != nil {
			return err
		}
		if x.zr == nil || c[0] != 0 {
			break
		}
		x.d.between = false
		var pad [4]byte
		if _, err := io.ReadFull(x.d.in, pad[:]); err != nil {
			return err
		}
		if pad != [4]byte{} {
			return errors.New("damaged padding between streams")
		}
		x.d.between = true
	}
	x.d.between = false
	x.w = &xzWalk{need: 12}
	var err error
	x.zr, err = xz.NewReader(xzSource{x.d.in, x.w})
	if err == io.EOF { //nolint:errorlint // a header that is cut off
		err = io.ErrUnexpectedEOF
	}
	return err
}

// xzSource gives one stream's bytes and then io.EOF.
type xzSource struct {
	in io.Reader
	w  *xzWalk
}

func (s xzSource) Read(b []byte) (int, error) {
	if s.w.ended() {
		return 0, io.EOF
	}
	n := 0
	var err error
	if s.w.bad == "" {
		n, err = s.in.Read(b[:min(int64(len(b)), s.w.wants())])
		s.w.feed(b[:n])
	}
	if s.w.bad != "" { // before the library sees what is refused
		return 0, errno.New(errno.ErrBadStream, "invalid tar header: the xz stream is damaged: %s", s.w.bad)
	}
	return n, err
}

// xzWalk follows an xz stream (The .xz File Format, version 1.2.1) from its
// header to the end of its footer, through the chunks of LZMA2, without
// decoding any.
type xzWalk struct {
	state xzState
	need  int    // bytes wanted in buf before step can go on
	buf   []byte // of a header, a chunk's head or one byte of the index
	skip  int64  // bytes to pass over
	check int64  // length of a block's check
	part  int64  // bytes so far of a block's data, or of the index
	left  uint64 // numbers that the index has to come
	begun bool   // the index's count of records has been read
	num   uint64 // the number of the index that is being read
	shift uint
	bad   string // what is wrong with it
}

// xzMaxDict is the largest dictionary that is decoded, that of `xz -9`: it is
// allocated as the stream says.
const xzMaxDict = 64 << 20

const xzDamaged = "its structure is not an xz stream's"

type xzState uint8

const (
	xzHeader xzState = iota
	xzBlockOrIndex
	xzBlock
	xzChunk
	xzChunkHead
	xzIndex
	xzEnd
)

// xzFooter is a stream footer's length.
const xzFooter = 12

func (w *xzWalk) ended() bool { return w.state == xzEnd && w.skip == 0 }

// wants is how many bytes surely still belong to the stream.
func (w *xzWalk) wants() int64 {
	if w.skip > 0 {
		return w.skip
	}
	return int64(w.need - len(w.buf))
}

func (w *xzWalk) feed(b []byte) {
	for len(b) > 0 && w.bad == "" {
		if w.skip > 0 {
			n := min(w.skip, int64(len(b)))
			w.skip -= n
			b = b[n:]
			continue
		}
		n := min(w.need-len(w.buf), len(b))
		w.buf = append(w.buf, b[:n]...)
		b = b[n:]
		if len(w.buf) == w.need {
			head := w.buf
			w.buf = nil
			w.step(head)
		}
	}
}

func (w *xzWalk) step(b []byte) {
	switch w.state {
	case xzHeader:
		// No check is 0 bytes; the others come in groups of three of 4, 8, 16, 32 and 64.
		if kind := b[7] & 15; kind > 0 {
			w.check = 4 << ((kind - 1) / 3)
		}
		w.state, w.need = xzBlockOrIndex, 1
	case xzBlockOrIndex:
		if b[0] == 0 {
			w.state, w.need, w.part = xzIndex, 1, 1
			return
		}
		w.state, w.need, w.part = xzBlock, (int(b[0])+1)*4-1, 0
	case xzBlock:
		w.bad = xzBlockReason(b)
		w.state, w.need = xzChunk, 1
	case xzChunk:
		w.chunk(b[0])
	case xzChunkHead:
		w.chunkHead(b)
	case xzIndex:
		w.index(b[0])
	case xzEnd:
		w.bad = xzDamaged
	}
}

// xzBlockReason judges a block header, but for its first byte: flags, the sizes
// that they announce, then the filters, of which LZMA2 alone is decoded; its
// property tells the dictionary's size.
func xzBlockReason(b []byte) string {
	flags, b := b[0], b[1:]
	for _, has := range [2]bool{flags&0x40 != 0, flags&0x80 != 0} {
		for more := has; more; b = b[1:] {
			if len(b) == 0 {
				return xzDamaged
			}
			more = b[0]&0x80 != 0
		}
	}
	switch {
	case flags&3 != 0 || len(b) < 3 || b[0] != 0x21 || b[1] != 1:
		return "it has other filters than LZMA2, which are not supported"
	case b[2] > 40:
		return xzDamaged
	case b[2] == 40 || (2|uint64(b[2]&1))<<(b[2]/2+11) > xzMaxDict:
		return "its dictionary is larger than 64 MiB, which is the limit"
	}
	return ""
}

// chunk reads an LZMA2 control byte and wants the rest of the chunk's head;
// a zero ends the block's data.
func (w *xzWalk) chunk(control byte) {
	w.part++
	switch {
	case control == 0:
		w.skip = (4-w.part%4)%4 + w.check
		w.state, w.need = xzBlockOrIndex, 1
	case control <= 2:
		w.state, w.need = xzChunkHead, 2
	case control >= 0xc0: // with properties
		w.state, w.need = xzChunkHead, 5
	case control >= 0x80:
		w.state, w.need = xzChunkHead, 4
	default:
		w.bad = xzDamaged
	}
}

func (w *xzWalk) chunkHead(b []byte) {
	size := b[len(b)&4/2:] // an uncompressed chunk's only number, else the second
	w.skip = int64(size[0])<<8 + int64(size[1]) + 1
	w.part += int64(len(b)) + w.skip
	w.state, w.need = xzChunk, 1
}

// index reads a byte of the index: the count of records, two numbers for
// each, then padding, its checksum and the stream footer.
func (w *xzWalk) index(c byte) {
	w.part++
	w.num |= uint64(c&0x7f) << w.shift
	if c&0x80 != 0 {
		w.shift += 7
		if w.shift > 62 {
			w.bad = xzDamaged
		}
		return
	}
	if w.begun {
		w.left--
	} else {
		w.begun, w.left = true, 2*w.num
	}
	w.num, w.shift = 0, 0
	if w.left == 0 {
		w.skip = (4-w.part%4)%4 + 4 + xzFooter
		w.state, w.need = xzEnd, 1
	}
}
