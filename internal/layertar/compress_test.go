package layertar_test

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"runtime"
	"testing"

	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
)

func compress(t rapid.TB, kind layertar.Compression, plain []byte, cut int) []byte {
	var b bytes.Buffer
	w, err := layertar.Compress(&b, kind)
	if err != nil {
		t.Fatal(err)
	}
	for len(plain) > 0 {
		n := min(cut, len(plain))
		if _, err := w.Write(plain[:n]); err != nil {
			t.Fatal(err)
		}
		plain = plain[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The programs gzip and zstd are the oracles. What is made does not depend on how
// the input is cut, below, at and over the size of a block.
func TestCompress(t *testing.T) {
	t.Parallel()
	tools := map[layertar.Compression]string{layertar.Gzip: "gzip", layertar.Zstd: "zstd"}
	for kind, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: it is the oracle", tool)
		}
		for _, n := range []int{0, 1, 100, 512<<10 - 1, 512 << 10, 512<<10 + 1, 3 << 20, 4 << 20, 9<<20 + 5} {
			plain := bytes.Repeat([]byte("what compresses well, "), n/22+1)[:n]
			for at := 0; at < n; at += 1000 {
				for i := at; i < min(at+100, n); i++ {
					plain[i] = byte(i * i >> 7)
				}
			}
			packed := compress(t, kind, plain, 1<<30)
			if got := run(t, bytes.NewReader(packed), tool, "-dc"); !bytes.Equal(got, plain) {
				t.Fatalf("%s gives back %d bytes of %d", tool, len(got), n)
			}
			r, found, err := layertar.Decompress(bytes.NewReader(packed))
			if err != nil || found != kind {
				t.Fatalf("recognised as %s, %v", found, err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("ours gives back %d bytes of %d, %v", len(got), n, err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			for _, cut := range []int{100_000, 4096} {
				if again := compress(t, kind, plain, cut); !bytes.Equal(again, packed) {
					t.Fatalf("%s of %d bytes in pieces of %d is another", kind, n, cut)
				}
			}
		}
	}
	if _, err := layertar.Compress(io.Discard, layertar.Xz); !errors.Is(err, errno.ErrNotSupported) {
		t.Error(err)
	}
}

type fullWriter struct{ left int }

func (w *fullWriter) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

// A writer that fails ends the compression, and no goroutine is left.
func TestCompressFails(t *testing.T) {
	t.Parallel()
	for _, kind := range []layertar.Compression{layertar.Gzip, layertar.Zstd} {
		w, err := layertar.Compress(&fullWriter{1000}, kind)
		if err != nil {
			t.Fatal(err)
		}
		noise := make([]byte, 1<<20)
		x := uint32(1)
		for i := range noise {
			x = x*1664525 + 1013904223
			noise[i] = byte(x >> 24)
		}
		for range 50 {
			if _, err = w.Write(noise); err != nil {
				break
			}
		}
		if cerr := w.Close(); !errors.Is(cerr, io.ErrShortWrite) {
			t.Errorf("%s: closed with %v after %v", kind, cerr, err)
		}
	}
}

func BenchmarkCompress(b *testing.B) {
	plain := benchStream(b)
	for _, kind := range []layertar.Compression{layertar.Gzip, layertar.Zstd} {
		b.Run(kind.String(), func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			for range b.N {
				b.ReportMetric(float64(len(compress(b, kind, plain, 1<<20)))/float64(len(plain)), "ratio")
			}
		})
		b.Run(kind.String()+"/program", func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			for range b.N {
				b.ReportMetric(float64(len(run(b, bytes.NewReader(plain), kind.String(), "-c")))/float64(len(plain)), "ratio")
			}
		})
	}
	b.Logf("%d processors", runtime.GOMAXPROCS(0))
}
