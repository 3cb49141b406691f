package layertar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
)

// importTar imports into a fresh directory and returns its path and record.
func importTar(t *testing.T, stream []byte, o layertar.ApplyOptions) (dir, split string, res layertar.Result, err error) {
	t.Helper()
	tmp := t.TempDir()
	dir, split = filepath.Join(tmp, "root"), filepath.Join(tmp, "split.gz")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	res, err = importInto(t, dir, split, bytes.NewReader(stream), o)
	return dir, split, res, err
}

func importInto(t *testing.T, dir, split string, r io.Reader, o layertar.ApplyOptions) (layertar.Result, error) {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, d)
	s, err := os.Create(split)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, s)
	return layertar.Import(context.Background(), d, r, s, o)
}

// member is a short way to write a tar by hand.
type member struct {
	typ        byte
	name, link string
	data       string
}

func makeTar(t testing.TB, ms ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range ms {
		h := &tar.Header{Typeflag: m.typ, Name: m.name, Linkname: m.link, Size: int64(len(m.data)), Mode: 0o644}
		if m.typ == tar.TypeDir {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func run(t testing.TB, stdin io.Reader, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out, errb bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errb
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, errb.String())
	}
	return out.Bytes()
}

func TestBrokenStreams(t *testing.T) {
	t.Parallel()
	good := makeTar(t, member{typ: tar.TypeReg, name: "a", data: strings.Repeat("x", 3000)}, member{typ: tar.TypeDir, name: "d/"})
	for name, c := range map[string]struct {
		stream []byte
		want   string
	}{
		"inside content": {good[:1500], "unexpected EOF"},
		"inside header":  {good[:100], "unexpected EOF"},
		"inside padding": {good[:512+3000+1], "unexpected EOF"},
		"junk":           {bytes.Repeat([]byte("junk"), 1000), "invalid tar header"},
		"zero then more": {append(make([]byte, 512), good...), "invalid tar header"},
		"one byte off":   {append([]byte{'y'}, good[1:]...), "invalid tar header"},
	} {
		for _, comp := range []string{"", "gzip", "bzip2", "xz", "zstd"} {
			stream := c.stream
			if comp != "" {
				stream = run(t, bytes.NewReader(stream), comp, "-c")
			}
			_, _, _, err := importTar(t, stream, layertar.ApplyOptions{})
			if !errors.Is(err, errno.ErrBadStream) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %s: %v", name, comp, err)
			}
			if comp == "" {
				continue
			}
			whole := run(t, bytes.NewReader(good), comp, "-c")
			_, _, _, err = importTar(t, whole[:len(whole)-9], layertar.ApplyOptions{})
			if !errors.Is(err, errno.ErrBadStream) || !strings.Contains(err.Error(), "unexpected EOF") {
				t.Errorf("cut off %s: %v", comp, err)
			}
		}
	}
	if _, _, res, err := importTar(t, nil, layertar.ApplyOptions{}); err != nil || res.DiffDigest != "" || res.Entries != 0 {
		t.Errorf("zero bytes: %+v, %v", res, err)
	}
}

func TestCompressions(t *testing.T) {
	t.Parallel()
	stream := makeTar(t, member{typ: tar.TypeReg, name: "a", data: strings.Repeat("abc", 300000)}, member{typ: tar.TypeSymlink, name: "l", link: "a"})
	for comp, kind := range map[string]layertar.Compression{"": layertar.None, "gzip": layertar.Gzip, "bzip2": layertar.Bzip2, "xz": layertar.Xz, "zstd": layertar.Zstd} {
		packed := stream
		if comp != "" {
			// Two members or frames; for zstd a skippable one between them.
			packed = run(t, bytes.NewReader(stream[:1000]), comp, "-c")
			if comp == "zstd" {
				packed = append(packed, "\x5a\x2a\x4d\x18\x03\x00\x00\x00xyz"...)
			}
			packed = append(packed, run(t, bytes.NewReader(stream[1000:]), comp, "-c")...)
		}
		_, _, res, err := importTar(t, packed, layertar.ApplyOptions{})
		if err != nil {
			t.Errorf("%s: %v", comp, err)
			continue
		}
		if res.Compression != kind || res.DiffSize != int64(len(stream)) || res.CompressedSize != int64(len(packed)) ||
			res.DiffDigest.Encoded() != sum(stream) || res.CompressedDigest.Encoded() != sum(packed) || res.Entries != 2 {
			t.Errorf("%s: %+v", comp, res)
		}
	}
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// closeIt closes what a test has opened.
func closeIt(t testing.TB, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// stoppable is a pipe whose reads end by Stop.
type stoppable struct{ *os.File }

func (s stoppable) Stop() { _ = s.SetReadDeadline(time.Unix(1, 0)) } // a pipe has deadlines

// TestImportOfASlowWriter: what is broken in its first bytes is told while the
// writer has more to say.
func TestImportOfASlowWriter(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(bytes.Repeat([]byte("X"), 2000)); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(time.Minute, func() { _ = w.Close() }) // closed below, when all is well
	d, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	_, err = layertar.Import(context.Background(), d, stoppable{r}, nil, layertar.ApplyOptions{})
	if !errors.Is(err, errno.ErrBadStream) {
		t.Errorf("%v", err)
	}
	if !late.Stop() {
		t.Fatal("it waited for the writer")
	}
	if err := errors.Join(w.Close(), r.Close(), d.Close()); err != nil {
		t.Error(err)
	}
}
