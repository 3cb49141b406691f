package layertar_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
)

func openSplit(t testing.TB, dir, split string) (*layertar.Split, *layertar.SplitReader) {
	t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := layertar.OpenSplit(split)
	if err != nil {
		t.Fatal(err)
	}
	r := s.Reader(root)
	t.Cleanup(func() {
		if err := errors.Join(r.Close(), s.Close(), root.Close()); err != nil {
			t.Error(err)
		}
	})
	return s, r
}

func TestSplitAtAnyOffset(t *testing.T) {
	t.Parallel()
	var ms []member
	for i := range 200 {
		ms = append(ms, member{typ: tar.TypeReg, name: "d/f" + strings.Repeat("n", i%150) + string(rune('a'+i%26)) + strings.Repeat("m", i/26), data: strings.Repeat(string(rune('a'+i%26)), i*37)})
	}
	stream := append(makeTar(t, ms...), bytes.Repeat([]byte("trailing"), 300000)...)
	dir, split, _, err := importTar(t, stream, layertar.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s, r := openSplit(t, dir, split)
	if n, err := s.Size(); err != nil || n != int64(len(stream)) {
		t.Fatalf("size %d, %v, want %d", n, err, len(stream))
	}
	var out bytes.Buffer
	if n, err := r.WriteTo(&out); err != nil || n != int64(len(stream)) || !bytes.Equal(out.Bytes(), stream) {
		t.Fatalf("WriteTo: %d, %v", n, err)
	}
	rapid.Check(t, func(t *rapid.T) {
		off := rapid.IntRange(0, len(stream)+100).Draw(t, "off")
		b := make([]byte, rapid.IntRange(0, 70000).Draw(t, "len"))
		n, err := r.ReadAt(b, int64(off))
		want := stream[min(off, len(stream)):min(off+len(b), len(stream))]
		if !bytes.Equal(b[:n], want) || (n < len(b)) != errors.Is(err, io.EOF) {
			t.Fatalf("ReadAt(%d, %d) = %d, %v", len(b), off, n, err)
		}
	})
	if _, err := io.Copy(io.Discard, io.NewSectionReader(r, 0, 1<<40)); err != nil {
		t.Fatal(err)
	}
}

// A directory with an empty name is the layer's root; its record has no name.
func TestSplitOfNamelessDirectory(t *testing.T) {
	t.Parallel()
	stream := makeTar(t, member{typ: tar.TypeDir, name: "./"}, member{typ: tar.TypeReg, name: "a", data: "1"})
	stream = fixSums(append(make([]byte, 100), stream[100:]...))
	dir, split, _, err := importTar(t, stream, layertar.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, r := openSplit(t, dir, split)
	var out bytes.Buffer
	if _, err := r.WriteTo(&out); err != nil || !bytes.Equal(out.Bytes(), stream) {
		t.Errorf("export: %v", err)
	}
}

func TestSplitOfChangedLayer(t *testing.T) {
	t.Parallel()
	stream := makeTar(t, member{typ: tar.TypeReg, name: "a", data: "content"}, member{typ: tar.TypeReg, name: "b", data: "more"})
	for what, spoil := range map[string]func(dir string) error{
		"content": func(d string) error { return os.WriteFile(filepath.Join(d, "a"), []byte("CONTENT"), 0o644) },
		"size":    func(d string) error { return os.WriteFile(filepath.Join(d, "a"), []byte("con"), 0o644) },
		"gone":    func(d string) error { return os.Remove(filepath.Join(d, "a")) },
		"symlink": func(d string) error {
			return errors.Join(os.Remove(filepath.Join(d, "a")), os.Symlink("b", filepath.Join(d, "a")))
		},
		"fifo": func(d string) error {
			return errors.Join(os.Remove(filepath.Join(d, "a")), mkfifo(filepath.Join(d, "a")))
		},
	} {
		dir, split, _, err := importTar(t, stream, layertar.ApplyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		_, r := openSplit(t, dir, split)
		if _, err := r.WriteTo(io.Discard); !errors.Is(err, errno.ErrDamaged) {
			t.Errorf("%s: WriteTo: %v", what, err)
		}
		if _, err := io.Copy(io.Discard, io.NewSectionReader(r, 0, 1<<40)); !errors.Is(err, errno.ErrDamaged) {
			t.Errorf("%s: sequential ReadAt: %v", what, err)
		}
	}
}

func TestDamagedSplit(t *testing.T) {
	t.Parallel()
	gz := func(s string) []byte { return run(t, strings.NewReader(s), "gzip", "-c") }
	whole := gz(`{"type":2,"payload":"` + strings.Repeat("AAAA", 5000) + `","position":0}` + "\n")
	for what, b := range map[string][]byte{
		"empty": nil, "no gzip": []byte("{}"), "cut": whole[:len(whole)-5], "no json": gz("hello\n"),
		"type": gz(`{"type":7,"payload":null,"position":0}`), "sum": gz(`{"type":1,"name":"a","size":3,"payload":"AAA=","position":0}`),
		"size": gz(`{"type":1,"name":"a","size":9223372036854775807,"payload":"AAAAAAAAAAA="}` + "\n" + `{"type":1,"name":"b","size":9223372036854775807,"payload":"AAAAAAAAAAA="}`),
		"name": gz(`{"type":1,"size":3,"payload":"AAAAAAAAAAA="}`), "line": gz(strings.Repeat("x", 20<<20)),
	} {
		path := filepath.Join(t.TempDir(), "x.tar-split.gz")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, r := openSplit(t, t.TempDir(), path)
		if _, err := r.WriteTo(io.Discard); !errors.Is(err, errno.ErrDamaged) {
			t.Errorf("%s: copied: %v", what, err)
		}
		if _, err := s.Size(); !errors.Is(err, errno.ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func mkfifo(path string) error { return syscall.Mkfifo(path, 0o600) }
