package layertar

import (
	"bufio"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/plyfs/plyfs/internal/longzstd"
)

// zstdWindow is the largest window that is held in memory: what RFC 8878 wants
// of every decoder, and what zstd's levels up to 19 make. Those of larger ones
// (zstd --ultra, --long, the containers tools' best level) are decoded more slowly.
const zstdWindow = 8 << 20

// zstdFrames reads a zstd stream: frames of usual windows in runs by the library,
// each of a larger one by package longzstd, and what is no frame by the library,
// which says what it is.
type zstdFrames struct {
	in   *bufio.Reader
	cur  io.Reader // nil between runs
	run  zstdRun
	lib  *zstd.Decoder
	long *longzstd.Reader
}

// Read reads plain bytes, over all frames.
func (z *zstdFrames) Read(b []byte) (int, error) {
	for {
		if z.cur == nil {
			if err := z.open(); err != nil {
				return 0, err
			}
		}
		n, err := z.cur.Read(b)
		if err == io.EOF {
			z.cur, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// open starts the next run; io.EOF when there is none.
func (z *zstdFrames) open() (err error) {
	if _, err := z.in.Peek(1); err != nil {
		return err
	}
	if isLong(z.in) {
		if z.long == nil {
			z.long = longzstd.NewReader(z.in)
		}
		z.cur = z.long
		return nil
	}
	z.run = zstdRun{in: z.in, w: zstdWalk{need: 4}}
	if z.lib == nil {
		z.lib, err = zstd.NewReader(&z.run, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
	} else {
		err = z.lib.Reset(&z.run)
	}
	if err != nil {
		return err
	}
	z.cur = z.lib
	return nil
}

// isLong tells whether in stands at a frame that is not the library's. It reads
// the frame's header at the most.
func isLong(in *bufio.Reader) bool {
	h, ok := longzstd.Peek(in)
	return ok && h.Window > zstdWindow
}

// Close gives the memory back.
func (z *zstdFrames) Close() error {
	if z.lib != nil {
		z.lib.Close()
	}
	if z.long != nil {
		return z.long.Close()
	}
	return nil
}

// zstdRun gives the frames up to one that is long, and then io.EOF.
type zstdRun struct {
	in    *bufio.Reader
	w     zstdWalk
	begun bool
}

// Read reads no more than the next part of a frame.
func (r *zstdRun) Read(b []byte) (int, error) {
	if r.w.atEnd() && r.begun && isLong(r.in) {
		return 0, io.EOF
	}
	if len(b) == 0 {
		return 0, nil
	}
	r.begun = true
	most := int64(len(b))
	switch {
	case r.w.bad:
	case r.w.skip > 0:
		most = min(most, r.w.skip)
	default:
		most = min(most, int64(r.w.need-len(r.w.buf)))
	}
	n, err := r.in.Read(b[:most])
	r.w.feed(b[:n])
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}
