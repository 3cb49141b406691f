package xz

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/plyfs/plyfs/internal/spill"
)

// ErrDamaged is what every error of the format is, and ErrUnsupported what an error
// is that tells of something that is right and not decoded here; what it is, and at
// which byte, is in the text.
var (
	ErrDamaged     = errors.New("damaged")
	ErrUnsupported = errors.New("unsupported")
)

// formatError is an error of the format.
type formatError struct {
	kind error
	text string
}

func (e *formatError) Error() string { return e.text }
func (e *formatError) Unwrap() error { return e.kind }

func damaged(format string, args ...any) error {
	return &formatError{ErrDamaged, fmt.Sprintf(format, args...)}
}

func unsupported(format string, args ...any) error {
	return &formatError{ErrUnsupported, fmt.Sprintf(format, args...)}
}

// phase is where a Reader stands.
type phase uint8

const (
	atStream phase = iota // before a stream's header
	atBlock               // before a block, or the index
	atChunk               // before a chunk of a block
)

// Reader decodes streams. Its memory is kept from one to the next.
type Reader struct {
	in  *bufio.Reader
	win *spill.Window
	at  int64 // bytes of in that have been taken

	phase  phase
	unread int // of the window's last bytes
	err    error

	flags [2]byte // of the stream
	check check
	index indexSum // of the stream's blocks
	block block
	lzma  lzma2
}

// block is what is known of the block that is being decoded.
type block struct {
	blockHeader
	start  int64 // in the input, of its header
	data   int64 // where its compressed data begins
	plain  int64 // bytes of content so far
	number int64 // in the stream, from 1
}

// NewReader returns a reader of the streams of in, the first of which follows.
func NewReader(in *bufio.Reader) *Reader { return &Reader{in: in} }

// Read reads content. At a stream's end it returns io.EOF, once for each: the next
// call is the next stream's, which begins where in stands then. Errors of in are
// returned as they are, its end within a stream is io.ErrUnexpectedEOF; an error
// stays.
func (r *Reader) Read(b []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(b) == 0 {
		return 0, nil
	}
	for r.unread == 0 {
		ended, err := r.next()
		if err != nil {
			r.err = r.located(err)
			return 0, r.err
		}
		if ended {
			return 0, io.EOF
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

// Padding passes over four bytes between streams or after the last, which must be
// zeros.
func (r *Reader) Padding() error {
	var b [4]byte
	if err := r.take(b[:]); err != nil {
		return r.located(err)
	}
	if b != [4]byte{} {
		return r.located(damaged("the padding between streams is not of zeros in groups of four"))
	}
	return nil
}

// located says where in the input an error is.
func (r *Reader) located(err error) error {
	var f *formatError
	switch {
	case errors.As(err, &f):
		return &formatError{f.kind, fmt.Sprintf("%s (before its byte %d)", f.text, r.at)}
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}

// take fills b from the input.
func (r *Reader) take(b []byte) error {
	n, err := io.ReadFull(r.in, b)
	r.at += int64(n)
	return err
}

// next takes the next part of the stream, and tells whether it was its end.
func (r *Reader) next() (ended bool, err error) {
	switch r.phase {
	case atStream:
		return false, r.beginStream()
	case atBlock:
		var first [1]byte
		start := r.at
		if err := r.take(first[:]); err != nil {
			return false, err
		}
		if first[0] == 0 {
			return true, r.endStream(start)
		}
		return false, r.beginBlock(start, first[0])
	case atChunk:
	}
	n, err := r.lzma.next(r, r.win)
	switch {
	case errors.Is(err, errLastChunk):
		return false, r.endBlock()
	case err != nil:
		return false, err
	}
	r.unread = n
	r.block.plain += int64(n)
	r.check.add(r.win.Last(n))
	return false, r.block.within(r.at)
}

// within compares a block's sizes so far with what its header says; at is the
// input's position.
func (b *block) within(at int64) error {
	switch {
	case b.hasPacked && at-b.data > b.packed:
		return damaged("block %d has more data than the %d bytes that it says", b.number, b.packed)
	case b.hasPlain && b.plain > b.size:
		return damaged("block %d has more content than the %d bytes that it says", b.number, b.size)
	}
	return nil
}

func (r *Reader) beginStream() error {
	var b [12]byte
	if err := r.take(b[:]); err != nil {
		return err
	}
	var err error
	if r.flags, err = streamHeader(b); err != nil {
		return err
	}
	if err := r.check.use(r.flags[1]); err != nil {
		return err
	}
	r.index.reset()
	r.block.number = 0
	r.phase = atBlock
	return nil
}

// beginBlock reads the header of a block that begins at start, after its first
// byte, which is its length.
func (r *Reader) beginBlock(start int64, first byte) error {
	var buf [1024]byte
	b := buf[:(int(first)+1)*4]
	b[0] = first
	if err := r.take(b[1:]); err != nil {
		return err
	}
	h, err := parseBlockHeader(b)
	if err != nil {
		return err
	}
	r.block = block{blockHeader: h, start: start, data: r.at, number: r.block.number + 1}
	if r.win == nil {
		r.win = spill.NewWindow(h.dict)
	} else if err := r.win.Reset(h.dict); err != nil {
		return err
	}
	r.lzma.begin(h.dict)
	r.check.reset()
	r.phase = atChunk
	return nil
}

// endBlock reads what follows a block's data: padding and check.
func (r *Reader) endBlock() error {
	b, packed := &r.block, r.at-r.block.data
	switch {
	case b.hasPacked && packed != b.packed:
		return damaged("block %d has %d bytes of data, and it says %d", b.number, packed, b.packed)
	case b.hasPlain && b.plain != b.size:
		return damaged("block %d has %d bytes of content, and it says %d", b.number, b.plain, b.size)
	}
	if err := r.zeros(int(-packed&3), "a block's padding"); err != nil {
		return err
	}
	var buf [64]byte
	sum := buf[:r.check.size()]
	if err := r.take(sum); err != nil {
		return err
	}
	if !r.check.is(sum) {
		return damaged("the content of block %d has another check (%s)", b.number, r.check.name())
	}
	r.index.add(b.data-b.start+packed+int64(len(sum)), b.plain)
	r.phase = atBlock
	return nil
}

// zeros takes n bytes (3 at the most), which must be zeros.
func (r *Reader) zeros(n int, what string) error {
	var b [3]byte
	if err := r.take(b[:n]); err != nil {
		return err
	}
	if b != [3]byte{} {
		return damaged("%s is not zeros", what)
	}
	return nil
}

// endStream reads the index, whose first byte at start has been taken, and the
// footer.
func (r *Reader) endStream(start int64) error {
	if err := r.readIndex(start); err != nil {
		return err
	}
	size := r.at - start
	var b [12]byte
	if err := r.take(b[:]); err != nil {
		return err
	}
	r.phase = atStream
	return streamFooter(b, r.flags, size)
}
