package layertar

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/klauspost/compress/gzip"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/longzstd"
	"github.com/plyfs/plyfs/internal/xz"
)

// Compression is a stream's outer format, with the numbers that the store's
// records use (format.md §2.2).
type Compression int

// The compressions that Decompress recognises.
const (
	None Compression = iota
	Bzip2
	Gzip
	Xz
	Zstd
)

// String returns the usual name: "none", "bzip2", "gzip", "xz", "zstd".
func (c Compression) String() string {
	switch c {
	case None:
		return "none"
	case Bzip2:
		return "bzip2"
	case Gzip:
		return "gzip"
	case Xz:
		return "xz"
	case Zstd:
		return "zstd"
	}
	return "unknown"
}

const (
	// sniffLen bytes tell every compression apart.
	sniffLen = 10
	// zstdSkippable is the magic number of skippable frames but its lowest
	// four bits.
	zstdSkippableHigh = "\x2a\x4d\x18"
)

// Detect recognises a compression by a stream's first bytes (sniffLen or
// fewer, if the stream is shorter).
func Detect(b []byte) Compression {
	switch {
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b, 0x08}):
		return Gzip
	case len(b) >= 10 && bytes.HasPrefix(b, []byte("BZh")) && b[3] >= '1' && b[3] <= '9' &&
		(string(b[4:10]) == "1AY&SY" || string(b[4:10]) == "\x17\x72\x45\x38\x50\x90"):
		return Bzip2
	case bytes.HasPrefix(b, []byte("\xfd7zXZ\x00")):
		return Xz
	case bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return Zstd
	case len(b) >= 4 && b[0]&0xf0 == 0x50 && string(b[1:4]) == zstdSkippableHigh:
		return Zstd
	}
	return None
}

// Decompress recognises the compression of r by content and returns the plain
// stream: all members of a gzip file, all frames of a zstd one. It reads no
// more of r than it needs for what it gives, so that it may read from a pipe.
// Closing the result does not close r. Errors of the format are ErrBadStream.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	d, err := newDecoder(r)
	if err != nil {
		return nil, None, err
	}
	return d, d.kind, nil
}

// decoder is a decompressor that knows whether it stands between frames.
type decoder struct {
	kind Compression
	in   *bufio.Reader
	out  io.Reader
	end  func() error
	// between is true while nothing of the frame that would be next has been
	// read. It belongs to the reading goroutine; only gzip and xz keep it.
	between bool
}

func newDecoder(r io.Reader) (*decoder, error) {
	d := &decoder{in: bufio.NewReaderSize(r, 64<<10), end: func() error { return nil }}
	head, err := d.in.Peek(sniffLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	d.kind = Detect(head)
	switch d.kind {
	case None:
		d.out = d.in
	case Gzip:
		d.out = &gzipMembers{d: d}
	case Bzip2:
		d.out = bzip2.NewReader(d.in)
	case Xz:
		x := newXzStreams(d, d.in)
		d.out, d.end = x, x.Close
	case Zstd:
		z := &zstdFrames{in: d.in}
		d.out, d.end = z, z.Close
	}
	if err != nil && d.kind != None && d.out == nil {
		return nil, d.fail(err)
	}
	return d, nil
}

// Read reads plain bytes.
func (d *decoder) Read(b []byte) (int, error) {
	n, err := d.out.Read(b)
	if err != nil && err != io.EOF { //nolint:errorlint // readers return it bare
		err = d.fail(err)
	}
	return n, err
}

// Close gives the decoder's memory back.
func (d *decoder) Close() error { return d.end() }

// fail keeps errors that came from the source and turns the format's into an
// ErrBadStream.
func (d *decoder) fail(err error) error {
	var src *sourceError
	var file *fs.PathError
	switch {
	case errors.As(err, &src):
		return src.err
	case d.kind == None:
		return err
	case errors.As(err, &file):
		return fmt.Errorf("decompress the %s stream, whose window is in a file of $TMPDIR: %w", d.kind, err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errno.New(errno.ErrBadStream, "unexpected EOF: the %s stream ends inside a frame", d.kind)
	case errors.Is(err, longzstd.ErrWindow):
		return errno.New(errno.ErrBadStream, "%s, and the limit is %d MiB: pack it again, with `zstd --long=31` at the most", err, longzstd.MaxWindow>>20)
	case errors.Is(err, xz.ErrUnsupported):
		return errno.New(errno.ErrBadStream, "the xz stream cannot be unpacked here: %s", err)
	}
	return errno.New(errno.ErrBadStream, "invalid tar header: the %s stream is damaged: %s", d.kind, err)
}

// sourceError marks an error of the reader below the decoder.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return fmt.Sprintf("read the stream: %v", e.err) }
func (e *sourceError) Unwrap() error { return e.err }

// gzipMembers reads a gzip file member by member.
type gzipMembers struct {
	d  *decoder
	zr *gzip.Reader
}

// Read reads plain bytes, over all members.
func (g *gzipMembers) Read(b []byte) (int, error) {
	for {
		if g.zr == nil || g.d.between {
			if err := g.open(); err != nil {
				return 0, err
			}
		}
		n, err := g.zr.Read(b)
		if err == io.EOF { //nolint:errorlint // gzip returns it bare at a member's end
			g.d.between, err = true, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// open starts the next member; io.EOF when there is none.
func (g *gzipMembers) open() error {
	if _, err := g.d.in.Peek(1); err != nil {
		return err
	}
	g.d.between = false
	var err error
	if g.zr == nil {
		g.zr, err = gzip.NewReader(g.d.in)
	} else {
		err = g.zr.Reset(g.d.in)
	}
	if err == io.EOF { //nolint:errorlint // a header that is cut off
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		g.zr.Multistream(false)
	}
	return err
}
