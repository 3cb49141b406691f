package layertar_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/plyfs/plyfs/internal/layertar"
)

// TestXzStreams reads what xz itself writes: several streams, blocks, checks,
// padding, filters, content that holds an xz file as it is; whole, in pieces,
// and pushed so that the end must be seen without a byte more.
func TestXzStreams(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 300_000)
	r := rand.NewChaCha8([32]byte{1})
	if _, err := r.Read(noise); err != nil {
		t.Fatal(err)
	}
	inner := run(t, bytes.NewReader(noise), "xz", "-c")
	stream := makeTar(t, member{typ: '0', name: "noise.xz", data: string(inner)},
		member{typ: '0', name: "text", data: string(bytes.Repeat([]byte("compressible "), 100_000))})
	for _, args := range [][]string{{"-c"}, {"-c", "-0"}, {"-c", "--check=none"}, {"-c", "--check=crc32"}, {"-c", "--check=sha256"},
		{"-c", "--block-size=65536"}, {"-c", "-T2", "--block-size=200000"}} {
		packed := run(t, bytes.NewReader(stream), "xz", args...)
		packed = append(append(packed, 0, 0, 0, 0), run(t, bytes.NewReader(nil), "xz", args...)...)
		plain, kind, err := layertar.Decompress(bytes.NewReader(packed))
		if err != nil || kind != layertar.Xz {
			t.Fatalf("%v: %v, %v", args, kind, err)
		}
		if got, err := io.ReadAll(plain); err != nil || !bytes.Equal(got, stream) {
			t.Fatalf("%v: %d bytes, %v", args, len(got), err)
		}
		p, _ := newPush(t, context.Background(), layertar.ApplyOptions{})
		for rest := packed; len(rest) > 0; {
			n := min(8192, len(rest))
			if _, err := p.Write(rest[:n]); err != nil {
				t.Fatalf("%v: %v", args, err)
			}
			rest = rest[n:]
			at, err := p.Boundary()
			if err != nil || at != (len(rest) == 0) {
				t.Fatalf("%v: %d bytes before the end: boundary %v, %v", args, len(rest), at, err)
			}
		}
		if res, err := p.Finish(); err != nil || res.DiffDigest.Encoded() != sum(stream) {
			t.Fatalf("%v: %+v, %v", args, res, err)
		}
		if _, err := io.ReadAll(mustPlain(t, packed[:len(packed)-40])); err == nil {
			t.Errorf("%v: a stream that is cut off was accepted", args)
		}
	}
}

func mustPlain(t *testing.T, b []byte) io.Reader {
	t.Helper()
	r, _, err := layertar.Decompress(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return r
}
