package longzstd_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/plyfs/plyfs/internal/longzstd"
	"github.com/plyfs/plyfs/internal/spill/spilltest"
)

// decode decodes all frames of b.
func decode(b []byte) (out []byte, err error) {
	in := bufio.NewReader(bytes.NewReader(b))
	r := longzstd.NewReader(in)
	defer func() { err = errors.Join(err, r.Close()) }()
	for {
		if _, err := in.Peek(1); err != nil {
			return out, nil
		}
		part, err := io.ReadAll(r)
		if out = append(out, part...); err != nil {
			return out, err
		}
	}
}

// TestAsZstd: what zstd packs at any level, with windows of any size and as frames
// of either form, comes out as it was, near and far, several frames in turn.
func TestAsZstd(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("zstd")
	if err != nil {
		t.Skip("zstd is not installed")
	}
	small, large := spilltest.Text(1, 1<<20), spilltest.Text(2, 24<<20)
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, large[:11<<20], 0o600); err != nil {
		t.Fatal(err)
	}
	var all, whole []byte
	for _, c := range []struct {
		content []byte
		args    []string
	}{
		{nil, []string{"-3"}},
		{[]byte("a"), []string{"-3"}},
		{bytes.Repeat([]byte{7}, 300_000), []string{"-1", "--check"}},
		{small, []string{"-1"}},
		{small, []string{"-3", "--no-check"}},
		{small, []string{"-9", "--long=30"}},
		{small, []string{"-19", "--ultra"}},
		{small, []string{"--ultra", "-22", "--long=31"}},
		{large, []string{"-3", "--long=27"}},
		{large, []string{"-1", "--long=23"}},
		{large[:11<<20], []string{"--fast=3", "--long=26", file}},
	} {
		cmd := exec.Command(program, append([]string{"-c", "-q"}, c.args...)...)
		cmd.Stdin = bytes.NewReader(c.content)
		packed, err := cmd.Output()
		if err != nil {
			t.Fatalf("zstd %v: %v", c.args, err)
		}
		got, err := decode(packed)
		if err != nil || !bytes.Equal(got, c.content) {
			t.Errorf("zstd %v of %d bytes: %d bytes, equal %v, %v", c.args, len(c.content), len(got), bytes.Equal(got, c.content), err)
		}
		if len(c.content) <= len(small) {
			all, whole = append(all, packed...), append(whole, c.content...)
		}
	}
	if got, err := decode(all); err != nil || !bytes.Equal(got, whole) {
		t.Errorf("all together: %d bytes of %d, %v", len(got), len(whole), err)
	}
}

// pack packs b with the library.
func pack(t testing.TB, b []byte, o ...zstd.EOption) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, append(o, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestDamage: a stream that is cut off anywhere is an unexpected end; one bit
// that is turned is found, by the checksum at the latest.
func TestDamage(t *testing.T) {
	t.Parallel()
	content := spilltest.Text(3, 40_000)
	packed := pack(t, content, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	random := rand.New(rand.NewPCG(4, 0))
	for range 300 {
		cut := 18 + random.IntN(len(packed)-18)
		if _, err := decode(packed[:cut]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut off at %d: %v", cut, err)
		}
		bad := slices.Clone(packed)
		bad[6+random.IntN(len(bad)-6)] ^= 1 << random.IntN(8)
		if got, err := decode(bad); err == nil && bytes.Equal(got, content) {
			t.Fatal("a turned bit is not found")
		}
	}
}

// header is a frame's with a window of 1<<log bytes.
func header(log int) []byte { return []byte{0x28, 0xb5, 0x2f, 0xfd, 0, byte((log - 10) << 3)} }

// TestWindowLimit: what asks for more than the limit is refused by what it says.
func TestWindowLimit(t *testing.T) {
	t.Parallel()
	empty := []byte{1, 0, 0}
	if got, err := decode(append(header(31), empty...)); err != nil || len(got) != 0 {
		t.Errorf("the limit: %v", err)
	}
	if _, err := decode(append(header(32), empty...)); !errors.Is(err, longzstd.ErrWindow) {
		t.Errorf("above the limit: %v", err)
	}
	// One segment of 3 GiB.
	if _, err := decode([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0xc0, 1, 0, 0}); !errors.Is(err, longzstd.ErrWindow) {
		t.Errorf("a segment above the limit: %v", err)
	}
}

// TestMemory: 64 MiB of a window of 2 GiB are decoded in less than 16.
func TestMemory(t *testing.T) { // not parallel: it counts what all goroutines allocate
	random := rand.New(rand.NewPCG(5, 0))
	block := make([]byte, 128<<10)
	for i := range block {
		block[i] = byte(random.Uint32())
	}
	const blocks = 512
	parts := []io.Reader{bytes.NewReader(header(31))}
	for i := range blocks {
		n := len(block) << 3
		if i == blocks-1 {
			n |= 1
		}
		parts = append(parts, bytes.NewReader([]byte{byte(n), byte(n >> 8), byte(n >> 16)}), bytes.NewReader(block))
	}
	in := bufio.NewReader(io.MultiReader(parts...))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := longzstd.NewReader(in)
	n, err := io.Copy(io.Discard, r)
	if err = errors.Join(err, r.Close()); err != nil || n != blocks*int64(len(block)) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 16<<20 {
		t.Errorf("%d bytes were allocated", got)
	}
}

// FuzzReader compares a frame with what the library makes of it.
func FuzzReader(f *testing.F) {
	for i, n := range []int{0, 1, 30, 500, 3000} {
		b := spilltest.Text(uint64(i), n)
		for _, level := range []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedBestCompression} {
			f.Add(pack(f, b, zstd.WithEncoderLevel(level)))
			f.Add(pack(f, b, zstd.WithEncoderLevel(level), zstd.WithEncoderCRC(false)))
		}
	}
	f.Add(pack(f, bytes.Repeat([]byte("abcd"), 33<<10), zstd.WithSingleSegment(true)))
	f.Add(slices.Concat(header(20), []byte{0x83, 0x3e, 0, 7}))
	lib, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<24), zstd.WithDecoderMaxWindow(1<<24))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(lib.Close)
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bufio.NewReader(bytes.NewReader(b))
		h, ok := longzstd.Peek(in)
		if !ok || h.Window > 1<<24 || h.Window < 128<<10 { // below, a block has another limit
			return
		}
		r := longzstd.NewReader(in)
		got, err := io.ReadAll(io.LimitReader(r, 1<<23))
		if cerr := r.Close(); cerr != nil {
			t.Fatal(cerr)
		}
		if len(got) == 1<<23 {
			return
		}
		used := len(b)
		if err == nil {
			used -= in.Buffered()
		}
		if err := lib.Reset(bytes.NewReader(b[:used])); err != nil {
			t.Fatal(err)
		}
		want, werr := io.ReadAll(lib)
		if (err == nil) != (werr == nil) {
			t.Fatalf("%v, and the library says %v", err, werr)
		}
		if err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, and the library gives %d others", len(got), len(want))
		}
	})
}

// TestNoLiterals: a block may have a table and no literals (RFC 8878, 3.1.1.3.1 has
// no least size), and a later one use it. What zstd refuses of these is refused.
func TestNoLiterals(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("zstd")
	if err != nil {
		t.Skip("zstd is not installed")
	}
	const packed, again = 2, 3
	table := "\x80\x10"                               // two symbols of one bit
	body := func(form, n int, stored string) string { // in one stream, without sequences
		head := form | n<<4 | len(stored)<<14
		return string([]byte{byte(head), byte(head >> 8), byte(head >> 16)}) + stored + "\x00"
	}
	four, none := body(packed, 4, table+"\x15"), body(packed, 0, table+"\x01")
	streams := "\x01\x00\x01\x00\x01\x00\x01\x01\x01\x01"
	for name, blocks := range map[string][]string{
		"four literals":           {four},
		"none":                    {none},
		"none, by a table before": {four, body(again, 0, "\x01")},
		"a table for later":       {none, body(again, 4, "\x15")},
		"no stream":               {body(packed, 0, table)},
		"no stream, again":        {four, body(again, 0, "")},
		"bits too many":           {body(packed, 0, table+"\x05")},
		"no table before":         {body(again, 0, "\x01")},
		"four streams":            {body(packed|1<<2, 0, table+streams)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			frame := []byte("\x28\xb5\x2f\xfd\x00\x50")
			for i, b := range blocks {
				head := len(b)<<3 | 2<<1
				if i == len(blocks)-1 {
					head |= 1
				}
				frame = append(append(frame, byte(head), byte(head>>8), byte(head>>16)), b...)
			}
			cmd := exec.Command(program, "-dc")
			cmd.Stdin = bytes.NewReader(frame)
			want, refused := cmd.Output()
			got, err := decode(frame)
			if (err != nil) != (refused != nil) || refused == nil && !bytes.Equal(got, want) {
				t.Errorf("%q, %v; zstd has %q, %v", got, err, want, refused)
			}
		})
	}
}
