package layertar

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/spill"
)

// A zstd:chunked stream is a zstd one that ends with skippable frames: a table
// of contents (JSON, compressed), in newer ones a tar-split record, and last a
// footer of little-endian numbers of eight bytes:
//
//	offset, compressed and uncompressed length, type (1)   of the table
//	offset, compressed and uncompressed length             of the record; newer
//	"GnUlInUx"
//
// Offsets are of a frame's content. The source is what skopeo 1.9.3 and podman
// 4.3.1 write, and the description of the format by the crate zstd-chunked.
const (
	tocMagic = "GnUlInUx"
	// tocFooterOld and tocFooterNew are the lengths of a footer.
	tocFooterOld, tocFooterNew = 5 * 8, 8 * 8
	// tocFrames bounds how many skippable frames in a row are looked at,
	// tocSize how many bytes of theirs are kept, and tocPlain a table's
	// uncompressed length: a longer one is not kept.
	tocFrames = 8
	tocSize   = 256 << 20
	tocPlain  = 1 << 30
	tocCRFS   = 1
)

// tocTracker keeps the skippable frames at the end of a zstd stream, on disk
// where they are long. It is used by one goroutine.
type tocTracker struct {
	walk   zstdWalk
	frames []skippable // since the last frame of data
	kept   spill.Spool // their contents
	off    bool        // too much, or it could not be kept: there is no table
}

// skippable is one such frame's content: where it stands in the stream and in
// the spool.
type skippable struct{ at, size, where int64 }

func newTOCTracker() *tocTracker {
	t := &tocTracker{}
	t.walk.frame, t.walk.skipped = t.frame, t.skipped
	return t
}

// feed takes the next bytes of the compressed stream, of any kind.
func (t *tocTracker) feed(b []byte) {
	if !t.off && !t.walk.bad {
		t.walk.feed(b)
	}
}

// frame begins a frame; size is -1 for one of data.
func (t *tocTracker) frame(at, size int64) {
	if size < 0 {
		if len(t.frames) > 0 {
			t.frames = t.frames[:0]
			t.off = t.kept.Close() != nil
			t.kept = spill.Spool{}
		}
		return
	}
	if len(t.frames) == tocFrames || t.kept.Size()+size > tocSize {
		t.off = true
		return
	}
	t.frames = append(t.frames, skippable{at, size, t.kept.Size()})
}

func (t *tocTracker) skipped(b []byte) {
	if !t.off && t.kept.Append(b) != nil {
		t.off = true
	}
}

// table finds the table of contents after the stream's end: nil when there is
// none that the footer fits to.
func (t *tocTracker) table() (compressed *io.SectionReader, plain int64, err error) {
	if t.off || len(t.frames) == 0 || !t.walk.atEnd() {
		return nil, 0, nil
	}
	if err := t.kept.Seal(); err != nil {
		return nil, 0, err
	}
	last := t.frames[len(t.frames)-1]
	if last.size != tocFooterOld && last.size != tocFooterNew {
		return nil, 0, nil
	}
	foot := make([]byte, last.size)
	if n, err := t.kept.ReadAt(foot, last.where); n < len(foot) {
		return nil, 0, err
	}
	if !bytes.HasSuffix(foot, []byte(tocMagic)) {
		return nil, 0, nil
	}
	num := func(i int) uint64 { return binary.LittleEndian.Uint64(foot[8*i:]) }
	if num(2) > tocPlain || num(3) != tocCRFS {
		return nil, 0, nil
	}
	for _, f := range t.frames[:len(t.frames)-1] {
		if uint64(f.at) == num(0) && uint64(f.size) == num(1) {
			return io.NewSectionReader(&t.kept, f.where, f.size), int64(num(2)), nil
		}
	}
	return nil, 0, nil
}

// writeTo writes the table, uncompressed, and returns its digest, which is that
// of its compressed bytes; "" when the stream has none that is whole.
func (t *tocTracker) writeTo(w *os.File) (d digest.Digest, err error) {
	in, plain, err := t.table()
	if in == nil || err != nil {
		return "", err
	}
	sum := sha256.New()
	z, err := zstd.NewReader(io.TeeReader(in, sum), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(16<<20))
	if err != nil {
		return "", err
	}
	defer z.Close()
	n, err := io.Copy(onlyWriter{w}, io.LimitReader(z, plain+1))
	var failed *os.PathError
	if errors.As(err, &failed) {
		return "", err
	}
	if err != nil || n != plain {
		return "", nil
	}
	if _, err := io.Copy(sum, in); err != nil { // what the decoder left
		return "", err
	}
	return digest.NewDigest(digest.SHA256, sum), nil
}

func (t *tocTracker) close() error { return t.kept.Close() }

// onlyWriter hides a file's ReadFrom.
type onlyWriter struct{ io.Writer }

// tocLimit bounds one value of a table's JSON.
const tocLimit = 4 << 20

// boundedReader reads up to a limit that is renewed.
type boundedReader struct {
	r    io.Reader
	left int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTOC
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left, math.MaxInt32)])
	b.left -= int64(n)
	return n, err
}
