package layertar_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
)

// zstdBlock is a raw block (RFC 8878, 3.1.1.2).
func zstdBlock(content []byte, last bool) []byte {
	n := len(content) << 3
	if last {
		n |= 1
	}
	return append([]byte{byte(n), byte(n >> 8), byte(n >> 16)}, content...)
}

// zstdHead begins a frame with a window of 1<<log bytes.
func zstdHead(log int) []byte { return []byte{0x28, 0xb5, 0x2f, 0xfd, 0, byte((log - 10) << 3)} }

// zstdFrame is one frame, of one raw block.
func zstdFrame(log int, content []byte) []byte {
	return append(zstdHead(log), zstdBlock(content, true)...)
}

// TestZstdWindow: every window that zstd makes is taken, whichever frame asks for
// it; a larger one is named, with the limit, and is no damage.
func TestZstdWindow(t *testing.T) {
	t.Parallel()
	file := rawFile("a", "1")
	for _, c := range []struct {
		first, second int
		refused       string
	}{
		{23, 23, ""},
		{27, 27, ""},
		{31, 23, ""},
		{23, 31, ""},
		{31, 31, ""},
		{32, 23, "a window of 4096 MiB"},
		{23, 33, "a window of 8192 MiB"},
	} {
		stream := slices.Concat(zstdFrame(c.first, file), zstdFrame(c.second, endBlocks))
		_, _, res, err := importTar(t, stream, layertar.ApplyOptions{})
		switch {
		case c.refused == "":
			if err != nil || res.DiffDigest.Encoded() != sum(slices.Concat(file, endBlocks)) {
				t.Errorf("%d, %d: %v", c.first, c.second, err)
			}
		case !errors.Is(err, errno.ErrBadStream) || !strings.Contains(err.Error(), c.refused) || !strings.Contains(err.Error(), "2048 MiB") || strings.Contains(err.Error(), "damaged"):
			t.Errorf("%d, %d: %v", c.first, c.second, err)
		}
	}
}

// TestZstdFramesInPieces: long frames and usual ones in any order, with frames to
// be skipped and empty ones between, are one stream, also from a source that
// gives a byte at a time, and damage in any of them is found.
func TestZstdFramesInPieces(t *testing.T) {
	t.Parallel()
	skipped := []byte{0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3}
	rapid.Check(t, func(rt *rapid.T) {
		want := slices.Concat(rawFile("a", strings.Repeat("x", 3000)), rawFile("b", "1"), endBlocks)
		var packed []byte
		for rest := want; ; {
			n := rapid.IntRange(0, len(rest)).Draw(rt, "n")
			packed = append(packed, zstdFrame(rapid.SampledFrom([]int{20, 23, 24, 31}).Draw(rt, "window"), rest[:n])...)
			if rapid.Bool().Draw(rt, "skip") {
				packed = append(packed, skipped...)
			}
			if rest = rest[n:]; len(rest) == 0 {
				break
			}
		}
		z, kind, err := layertar.Decompress(iotest.OneByteReader(bytes.NewReader(packed)))
		if err != nil || kind != layertar.Zstd {
			rt.Fatal(kind, err)
		}
		got, err := io.ReadAll(z)
		if err = errors.Join(err, z.Close()); err != nil || !bytes.Equal(got, want) {
			rt.Fatalf("%d bytes of %d, %v", len(got), len(want), err)
		}
		z, _, err = layertar.Decompress(bytes.NewReader(packed[:len(packed)-1]))
		if err != nil {
			rt.Fatal(err)
		}
		_, err = io.ReadAll(z)
		if cerr := z.Close(); cerr != nil || !errors.Is(err, errno.ErrBadStream) {
			rt.Fatalf("cut off: %v, %v", err, cerr)
		}
	})
}

// TestZstdWindowMemory: an import takes less than 32 MiB whatever window its
// stream asks for and fills.
func TestZstdWindowMemory(t *testing.T) { // not parallel: it counts what all goroutines allocate
	content := make([]byte, 127<<10)
	random := rand.New(rand.NewPCG(1, 0))
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	const blocks = 512
	block := zstdBlock(content, false)
	for _, log := range []int{23, 24, 27, 31} {
		tmp := t.TempDir()
		parts := []io.Reader{bytes.NewReader(zstdHead(log)), bytes.NewReader(zstdBlock(rawHeader('0', "a", blocks*int64(len(content)), nil), false))}
		for range blocks {
			parts = append(parts, bytes.NewReader(block))
		}
		parts = append(parts, bytes.NewReader(zstdBlock(endBlocks, true)))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := importInto(t, tmp, filepath.Join(t.TempDir(), "s"), io.MultiReader(parts...), layertar.ApplyOptions{}); err != nil {
			t.Fatalf("%d: %v", log, err)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 32<<20 {
			t.Errorf("with a window of %d MiB %d bytes were allocated", 1<<log>>20, got)
		}
	}
}
