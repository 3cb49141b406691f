package layertar_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
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

// xzHead begins an xz file without checks and its first block, of a dictionary's
// property (The .xz File Format, 5.3.1).
func xzHead(property byte) []byte {
	b := []byte("\xfd7zXZ\x00\x00\x00")
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b[6:8]))
	head := []byte{2, 0, 0x21, 1, property, 0, 0, 0}
	return append(b, binary.LittleEndian.AppendUint32(head, crc32.ChecksumIEEE(head))...)
}

// xzChunk is a chunk of content as it is.
func xzChunk(content []byte, first bool) []byte {
	head := []byte{2, byte((len(content) - 1) >> 8), byte(len(content) - 1)}
	if first {
		head[0] = 1
	}
	return append(head, content...)
}

// TestXzDictionary: dictionaries of all sizes are taken, filters are refused by
// name.
func TestXzDictionary(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("xz is not installed: this test asks it for a stream")
	}
	plain := makeTar(t, member{typ: '0', name: "a", data: strings.Repeat("some text ", 1000)})
	for _, c := range []struct{ options, refused string }{
		{"--lzma2=preset=0,dict=4KiB", ""},
		{"--lzma2=preset=0,dict=96MiB", ""},
		{"--lzma2=preset=0,dict=512MiB", ""},
		{"-0", ""},
		{"-9", ""},
		{"--block-size=4096", ""},
		{"--x86 --lzma2", "the filter x86 is not supported"},
		{"--delta --lzma2", "the filter delta is not supported"},
	} {
		stream := run(t, bytes.NewReader(plain), "xz", append([]string{"-c", "-T1"}, strings.Fields(c.options)...)...)
		_, _, res, err := importTar(t, stream, layertar.ApplyOptions{})
		switch {
		case c.refused == "":
			if err != nil || res.DiffSize != int64(len(plain)) {
				t.Errorf("%s: %v", c.options, err)
			}
		case !errors.Is(err, errno.ErrBadStream) || !strings.Contains(err.Error(), c.refused) || strings.Contains(err.Error(), "damaged"):
			t.Errorf("%s: %v", c.options, err)
		}
	}
}

// TestXzDictionaryMemory: decoding takes less than 32 MiB whatever dictionary its
// stream asks for and fills.
func TestXzDictionaryMemory(t *testing.T) { // not parallel: it counts what all goroutines allocate
	content := make([]byte, 64<<10)
	random := rand.New(rand.NewPCG(1, 0))
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	const chunks = 1200
	chunk := xzChunk(content, false)
	for _, property := range []byte{22, 24, 28, 40} { // 8, 16, 64 MiB, 4 GiB
		parts := []io.Reader{bytes.NewReader(xzHead(property)), bytes.NewReader(xzChunk(rawHeader('0', "a", chunks*int64(len(content)), nil), true))}
		for range chunks {
			parts = append(parts, bytes.NewReader(chunk))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := importInto(t, t.TempDir(), filepath.Join(t.TempDir(), "s"), io.MultiReader(parts...), layertar.ApplyOptions{})
		if !errors.Is(err, errno.ErrBadStream) || !strings.Contains(err.Error(), "the xz stream ends inside") {
			t.Fatalf("%d: %v", property, err)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 32<<20 {
			t.Errorf("property %d: %d bytes were allocated", property, got)
		}
	}
}

// TestNoPlaceForWindow: where the window's file cannot be, that is said, and not
// that the stream is damaged.
func TestNoPlaceForWindow(t *testing.T) {
	dir := t.TempDir()
	z, _, err := layertar.Decompress(io.MultiReader(bytes.NewReader(xzHead(40)), bytes.NewReader(xzChunk(make([]byte, 1<<16), true)),
		bytes.NewReader(bytes.Repeat(xzChunk(make([]byte, 1<<16), false), 200))))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", filepath.Join(dir, "none"))
	_, err = io.Copy(io.Discard, z)
	if cerr := z.Close(); cerr != nil || !errors.Is(err, os.ErrNotExist) || errors.Is(err, errno.ErrBadStream) || !strings.Contains(err.Error(), "$TMPDIR") {
		t.Errorf("%v, %v", err, cerr)
	}
}
