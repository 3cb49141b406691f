package layertar

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"github.com/plyfs/plyfs/internal/errno"
)

const (
	gzipBlock = 512 << 10 // plain bytes that are compressed at once
	zstdFrame = 4 << 20
	// gzipWindow is how far deflate looks back (RFC 1951).
	gzipWindow = 32 << 10
)

// Compress returns a writer that compresses what is written and passes it to w,
// with as many goroutines as there are processors (four at most). The output
// depends on the input only, not on how many there are, nor on how it was cut
// into writes. Close ends the stream and not w. gzip (one member, RFC 1952)
// and zstd (frames of 4 MiB, RFC 8878) are known, and None.
func Compress(w io.Writer, kind Compression) (io.WriteCloser, error) {
	switch kind {
	case None:
		return plainWriter{w}, nil
	case Gzip:
		return newPacker(w, gzipBlock, &gzipPacker{}), nil
	case Zstd:
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(maxWriters), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(zstdFrame))
		if err != nil {
			return nil, err
		}
		return newPacker(w, zstdFrame, &zstdPacker{enc: enc}), nil
	case Bzip2, Xz:
	}
	return nil, errno.New(errno.ErrNotSupported, "layers are not compressed with %s; use gzip or zstd", kind)
}

type plainWriter struct{ io.Writer }

// Close does nothing.
func (plainWriter) Close() error { return nil }

// packing is a format whose blocks can be compressed independently.
type packing interface {
	// head is what the stream begins with.
	head() []byte
	// pack compresses a block; before is what was in front of it. It is
	// called by several goroutines.
	pack(before, block []byte) ([]byte, error)
	// seen is called with each block in order, before it is packed.
	seen(block []byte)
	// tail is what the stream ends with; empty tells that it had no block.
	tail(empty bool) ([]byte, error)
}

// packer cuts a stream into blocks, has them compressed by goroutines and
// written in order by one more. The number of blocks under way is bounded.
type packer struct {
	w    io.Writer
	size int
	p    packing

	cur    []byte // of Write's goroutine: the block that is being filled,
	before []byte // and the end of the one before
	any    bool

	order chan chan packed
	slots chan struct{} // one for each block under way
	done  chan struct{} // closed when the writing goroutine has ended

	mu  sync.Mutex
	err error // guarded by mu: the first one
}

type packed struct {
	b   []byte
	err error
}

func newPacker(w io.Writer, size int, p packing) *packer {
	n := min(runtime.GOMAXPROCS(0), maxWriters)
	k := &packer{w: w, size: size, p: p, order: make(chan chan packed, n), slots: make(chan struct{}, n), done: make(chan struct{})}
	go k.flush()
	return k
}

// flush is the writing goroutine.
func (k *packer) flush() {
	defer close(k.done)
	k.put(packed{b: k.p.head()})
	for c := range k.order {
		k.put(<-c)
	}
}

func (k *packer) put(b packed) {
	err := b.err
	if err == nil && k.failed() == nil {
		_, err = k.w.Write(b.b)
	}
	if err != nil {
		k.mu.Lock()
		if k.err == nil {
			k.err = err
		}
		k.mu.Unlock()
	}
}

func (k *packer) failed() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// Write takes b; an error of the writer below is returned by a later Write or
// by Close.
func (k *packer) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		if err := k.failed(); err != nil {
			return n, err
		}
		if k.cur == nil {
			k.cur = make([]byte, 0, k.size)
		}
		m := min(len(b), k.size-len(k.cur))
		k.cur = append(k.cur, b[:m]...)
		b = b[m:]
		n += m
		if len(k.cur) == k.size {
			k.send()
		}
	}
	return n, nil
}

// send hands the block on.
func (k *packer) send() {
	block, before := k.cur, k.before
	k.cur, k.any = nil, true
	k.before = block[max(0, len(block)-gzipWindow):]
	k.p.seen(block)
	c := make(chan packed, 1)
	k.slots <- struct{}{}
	k.order <- c
	go func() {
		b, err := k.p.pack(before, block)
		c <- packed{b, err}
		<-k.slots
	}()
}

// Close compresses what is left, ends the stream and waits.
func (k *packer) Close() error {
	if len(k.cur) > 0 {
		k.send()
	}
	tail, err := k.p.tail(!k.any)
	c := make(chan packed, 1)
	c <- packed{tail, err}
	k.order <- c
	close(k.order)
	<-k.done
	return k.failed()
}

// gzipPacker makes one member: blocks that end on a byte, each with the end of
// the one before as its dictionary, as pigz does.
type gzipPacker struct {
	sum, n uint32
	pool   sync.Pool // of *flate.Writer
}

// head has no name and no time: the same bytes for the same content.
func (*gzipPacker) head() []byte { return []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff} }

func (g *gzipPacker) seen(b []byte) {
	g.sum = crc32.Update(g.sum, crc32.IEEETable, b)
	g.n += uint32(len(b))
}

func (g *gzipPacker) pack(before, b []byte) ([]byte, error) {
	out := &byteWriter{b: make([]byte, 0, len(b)/2)}
	w, _ := g.pool.Get().(*flate.Writer)
	var err error
	if w == nil {
		w, err = flate.NewWriterDict(out, flate.DefaultCompression, before)
	} else {
		w.ResetDict(out, before)
	}
	if err != nil {
		return nil, err
	}
	_, err = w.Write(b)
	err = errors.Join(err, w.Flush())
	g.pool.Put(w)
	return out.b, err
}

func (g *gzipPacker) tail(bool) ([]byte, error) {
	b := []byte{3, 0} // the last block, which is empty
	b = binary.LittleEndian.AppendUint32(b, g.sum)
	return binary.LittleEndian.AppendUint32(b, g.n), nil
}

// byteWriter appends.
type byteWriter struct{ b []byte }

// Write appends b.
func (w *byteWriter) Write(b []byte) (int, error) {
	w.b = append(w.b, b...)
	return len(b), nil
}

// zstdPacker makes a frame of each block.
type zstdPacker struct{ enc *zstd.Encoder }

func (*zstdPacker) head() []byte { return nil }

func (*zstdPacker) seen([]byte) {}

func (z *zstdPacker) pack(_, b []byte) ([]byte, error) {
	return z.enc.EncodeAll(b, make([]byte, 0, len(b)/2)), nil
}

func (z *zstdPacker) tail(empty bool) (b []byte, err error) {
	if empty {
		b = []byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0} // a frame of no bytes
	}
	return b, z.enc.Close()
}
