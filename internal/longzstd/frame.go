package longzstd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"

	"github.com/plyfs/plyfs/internal/spill"
)

const (
	// MaxWindow is the largest window that is decoded: the largest that `zstd
	// --ultra --long=31` makes.
	MaxWindow = 2 << 30
	// maxBlock is the most that a block holds (RFC 8878, 3.1.1.2.3); that it is
	// less where the window is less is not held against a frame.
	maxBlock = 128 << 10

	magic     = 0xfd2fb528
	maxHeader = 4 + 1 + 1 + 4 + 8
)

// ErrDamaged is every error of the format; what is wrong is in its text.
var ErrDamaged = errors.New("damaged zstd frame")

// ErrWindow tells of a frame that asks for more than MaxWindow; the error's text
// says how much.
var ErrWindow = errors.New("the zstd stream is packed with too large a window")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// Header is what a frame says of itself.
type Header struct {
	Window  uint64 // bytes that may be looked back at
	size    uint64 // of the content, if sized
	sized   bool
	summed  bool
	length  int // of the header itself, with the magic number
	hasDict bool
	other   bool // the reserved bit is set
}

// Peek tells what the frame that r stands at asks for, and consumes nothing. It
// reads no more than the frame's header. ok is false where no frame of data
// begins, or not all of its header is there.
func Peek(r *bufio.Reader) (h Header, ok bool) {
	b, err := r.Peek(5)
	if err != nil || binary.LittleEndian.Uint32(b) != magic {
		return h, false
	}
	d := b[4]
	windowed := d&0x20 == 0 // else the window is the content
	dict, size := [4]int{0, 1, 2, 4}[d&3], [4]int{0, 2, 4, 8}[d>>6]
	if !windowed && size == 0 {
		size = 1
	}
	h.length, h.sized, h.summed, h.other = 5+dict+size, size > 0, d&4 != 0, d&8 != 0
	if windowed {
		h.length++
	}
	if b, err = r.Peek(h.length); err != nil {
		return h, false
	}
	b = b[5:]
	if windowed {
		base := uint64(1) << (10 + b[0]>>3)
		h.Window = base + base/8*uint64(b[0]&7)
		b = b[1:]
	}
	for _, c := range b[:dict] {
		h.hasDict = h.hasDict || c != 0
	}
	var le [8]byte
	copy(le[:], b[dict:])
	h.size = binary.LittleEndian.Uint64(le[:])
	if size == 2 {
		h.size += 256
	}
	if !windowed {
		h.Window = h.size
	}
	return h, true
}

// Reader decodes frames. Its memory is kept from one to the next.
type Reader struct {
	in  *bufio.Reader
	win *spill.Window

	h        Header
	inFrame  bool
	last     bool // the last block has been decoded
	produced uint64
	unread   int // of the window's last bytes
	sum      xxhash.Digest
	err      error

	block decoder
	buf   []byte // of a block as it stands in the stream
}

// NewReader returns a reader of the frames of in, the first of which follows.
func NewReader(in *bufio.Reader) *Reader { return &Reader{in: in} }

// Read reads content. At a frame's end it returns io.EOF, once for each: the next
// call is the next frame's. Errors of in are returned as they are, its end within
// a frame is io.ErrUnexpectedEOF; an error stays.
func (r *Reader) Read(b []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(b) == 0 {
		return 0, nil
	}
	if !r.inFrame {
		if r.err = r.begin(); r.err != nil {
			return 0, r.err
		}
	}
	for r.unread == 0 {
		if r.last {
			if r.err = r.end(); r.err != nil {
				return 0, r.err
			}
			r.inFrame = false
			return 0, io.EOF
		}
		if r.err = r.next(); r.err != nil {
			if errors.Is(r.err, io.EOF) {
				r.err = io.ErrUnexpectedEOF
			}
			return 0, r.err
		}
	}
	n := copy(b, r.win.Last(r.unread))
	r.unread -= n
	return n, nil
}

// Close gives the window's file back. The input stays open.
func (r *Reader) Close() error {
	if r.win == nil {
		return nil
	}
	return r.win.Close()
}

func (r *Reader) begin() error {
	h, ok := Peek(r.in)
	switch {
	case !ok:
		return damaged("no frame begins here")
	case h.Window > MaxWindow:
		return fmt.Errorf("%w of %d MiB", ErrWindow, h.Window>>20)
	case h.other:
		return damaged("a bit is set that has no meaning yet")
	case h.hasDict:
		return damaged("it was made with a dictionary")
	}
	if _, err := r.in.Discard(h.length); err != nil {
		return err
	}
	if r.win == nil {
		r.win = spill.NewWindow(int64(h.Window))
	} else if err := r.win.Reset(int64(h.Window)); err != nil {
		return err
	}
	r.h, r.inFrame, r.last, r.produced = h, true, false, 0
	r.sum.Reset()
	r.block.reset()
	return nil
}

// next decodes a block.
func (r *Reader) next() error {
	var head [3]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return err
	}
	v := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	kind, size := v>>1&3, v>>3
	if size > maxBlock {
		return damaged("a block of %d bytes", size)
	}
	if err := r.win.Room(maxBlock); err != nil {
		return err
	}
	stored := size
	if kind == 1 {
		stored = 1
	}
	if cap(r.buf) < stored {
		r.buf = make([]byte, maxBlock)
	}
	b := r.buf[:stored]
	if _, err := io.ReadFull(r.in, b); err != nil {
		return err
	}
	n := size
	var err error
	switch kind {
	case 0:
		r.win.Append(b)
	case 1:
		if size > 0 {
			r.win.Append(b)
			err = r.repeat(size - 1)
		}
	case 2:
		n, err = r.block.decode(r.win, b, maxBlock)
	default:
		err = damaged("a block of the reserved type")
	}
	if err != nil {
		return err
	}
	r.last = v&1 != 0
	r.unread = n
	r.produced += uint64(n)
	if r.h.sized && r.produced > r.h.size {
		return damaged("more content than the %d bytes that it says", r.h.size)
	}
	if r.h.summed {
		_, _ = r.sum.Write(r.win.Last(n)) // never fails
	}
	return nil
}

// repeat adds the window's last byte n times.
func (r *Reader) repeat(n int) error {
	if n == 0 {
		return nil
	}
	return r.win.Repeat(1, n)
}

func (r *Reader) end() error {
	if r.h.sized && r.produced != r.h.size {
		return damaged("%d bytes of content, and it says %d", r.produced, r.h.size)
	}
	if !r.h.summed {
		return nil
	}
	var b [4]byte
	if _, err := io.ReadFull(r.in, b[:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if binary.LittleEndian.Uint32(b[:]) != uint32(r.sum.Sum64()) {
		return damaged("the checksum is another")
	}
	return nil
}
