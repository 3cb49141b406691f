package layertar_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/whiteout"
)

func seeds(f *testing.F) {
	f.Helper()
	for _, cases := range []map[string]applyCase{aloneCases, overCases} {
		for _, c := range cases {
			f.Add(makeTar(f, c.ms...), byte(0))
			f.Add(makeTar(f, c.ms...), byte(0x83))
		}
	}
	realSeeds(f)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: '0', Name: "f", Format: tar.FormatPAX, Xattrs: map[string]string{"user.a": "b"}}), //nolint:staticcheck // the short way
		w.WriteHeader(&tar.Header{Typeflag: '0', Name: string(bytes.Repeat([]byte("l"), 200)), Format: tar.FormatGNU}), w.Close())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes(), byte(0))
	for _, v := range []string{"gnu", "0.0", "0.1", "1.0"} {
		p := filepath.Join("testdata", "sparse-"+v+".tar")
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, byte(0))
	}
}

// realSeeds adds a real tree as the programs pack it.
func realSeeds(f *testing.F) {
	src := filepath.Join(runtime.GOROOT(), "src") //nolint:staticcheck // a tree that is there
	for _, format := range []string{"gnu", "pax", "ustar", "oldgnu", "v7"} {
		out, err := exec.Command("tar", "c", "--format="+format, "-C", src, "errors").Output()
		if err != nil {
			f.Skipf("no tar with the format %s: %v", format, err)
		}
		f.Add(out, byte(0x80))
		f.Add(gzipped(f, out), byte(1))
	}
}

// FuzzApply: whatever the stream, nothing outside the root changes; a refusal
// is an ErrBadStream or a system call's error; what is accepted comes back
// byte for byte.
func FuzzApply(f *testing.F) {
	seeds(f)
	limits := layertar.Limits{FileSize: 1 << 20, Total: 1 << 20}
	f.Fuzz(func(t *testing.T, stream []byte, style byte) {
		if style&0x80 != 0 {
			stream = fixSums(stream)
		}
		g := guard(t)
		var split bytes.Buffer
		d, err := os.Open(g.root)
		if err != nil {
			t.Fatal(err)
		}
		defer closeIt(t, d)
		o := layertar.ApplyOptions{Style: whiteout.Style(style % 4), Limits: limits, IgnoreChownErrors: true}
		res, err := layertar.Import(context.Background(), d, bytes.NewReader(stream), &split, o)
		g.check(t)
		if err != nil {
			if no := errno.Of(err); no == 0 || no.Error() == "" {
				t.Fatalf("%v", err)
			}
			return
		}
		path := filepath.Join(t.TempDir(), "s")
		if err := os.WriteFile(path, split.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		s, r := openSplit(t, g.root, path)
		if n, err := s.Size(); err != nil || n != res.DiffSize {
			t.Fatalf("record of %d bytes, %v, stream of %d", n, err, res.DiffSize)
		}
		if res.Compression != layertar.None {
			return
		}
		var out bytes.Buffer
		if _, err := r.WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), stream) {
			t.Fatal("the export differs from the stream")
		}
	})
}

// FuzzParserAsGo: what Go's archive/tar reads to the end, we read to the same
// names, links, types, sizes, owners, times and content, or refuse with a reason.
func FuzzParserAsGo(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, stream []byte, style byte) {
		if style&0x80 != 0 {
			stream = fixSums(stream)
		}
		if layertar.Detect(stream[:min(10, len(stream))]) != layertar.None {
			return
		}
		limits := layertar.Limits{FileSize: 1 << 20, Total: 1 << 20}
		want, ok := goMembers(stream)
		if !ok {
			return
		}
		got, err := layertar.Members(bytes.NewReader(stream), limits)
		if err != nil {
			if !errors.Is(err, errno.ErrBadStream) {
				t.Fatal(err)
			}
			return
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

// FuzzSplit: no record makes the reader do more than say that it is damaged.
func FuzzSplit(f *testing.F) {
	f.Add([]byte(`{"type":1,"name":"a","size":3,"payload":"AAAAAAAAAAA=","position":0}` + "\n" + `{"type":2,"payload":"AAAA","position":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, "s")
		if err := os.WriteFile(path, gzipped(t, text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := layertar.OpenSplit(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Size(); err != nil && !errors.Is(err, errno.ErrDamaged) {
			t.Fatal(err)
		}
		root, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Reader(root).WriteTo(io.Discard)
		if err := errors.Join(s.Close(), root.Close()); err != nil {
			t.Fatal(err)
		}
	})
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// fixSums gives every block that looks like a header a checksum that holds,
// so that mutations get past it.
func fixSums(stream []byte) []byte {
	out := bytes.Clone(stream)
	for b := out; len(b) >= 512; b = b[512:] {
		if string(b[257:262]) != "ustar" {
			continue
		}
		sum := 8 * int(' ')
		for i, c := range b[:512] {
			if i < 148 || i >= 156 {
				sum += int(c)
			}
		}
		copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	}
	return out
}
