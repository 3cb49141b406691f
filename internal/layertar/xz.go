package layertar

import (
	"bufio"
	"io"

	"github.com/plyfs/plyfs/internal/xz"
)

// xzStreams reads an xz file stream by stream.
type xzStreams struct {
	d  *decoder
	zr *xz.Reader
}

func newXzStreams(d *decoder, in *bufio.Reader) *xzStreams {
	d.between = true
	return &xzStreams{d: d, zr: xz.NewReader(in)}
}

// Read reads plain bytes, over all streams and the padding between them.
func (x *xzStreams) Read(b []byte) (int, error) {
	for {
		if x.d.between {
			if err := x.open(); err != nil {
				return 0, err
			}
		}
		n, err := x.zr.Read(b)
		if err == io.EOF { //nolint:errorlint // it is returned bare, at a stream's end
			x.d.between, err = true, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// open passes over padding (zeros in groups of four) up to the next stream;
// io.EOF when there is none.
func (x *xzStreams) open() error {
	for {
		c, err := x.d.in.Peek(1)
		if err != nil {
			return err
		}
		x.d.between = false
		if c[0] != 0 {
			return nil
		}
		if err := x.zr.Padding(); err != nil {
			return err
		}
		x.d.between = true
	}
}

// Close gives the memory back.
func (x *xzStreams) Close() error { return x.zr.Close() }
