package layertar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
)

func newPush(t testing.TB, ctx context.Context, o layertar.ApplyOptions) (*layertar.Push, string) { //nolint:revive // t comes first
	t.Helper()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	split, err := os.Create(filepath.Join(t.TempDir(), "split.gz"))
	if err != nil {
		t.Fatal(err)
	}
	p := layertar.NewPush(ctx, dir, split, o)
	t.Cleanup(func() {
		p.Abort()
		if err := errors.Join(dir.Close(), split.Close()); err != nil {
			t.Error(err)
		}
	})
	return p, dir.Name()
}

// boundaries tells for every prefix length of a plain stream whether it could
// end there, by what the stream was made of.
func boundaries(t testing.TB, stream []byte) map[int]bool {
	t.Helper()
	ok := map[int]bool{0: true}
	r := bytes.NewReader(stream)
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err != nil {
			break
		}
		pos := len(stream) - r.Len() // after the header
		end := pos + int(h.Size+511)/512*512
		ok[end] = true
	}
	return ok
}

func TestPushBoundary(t *testing.T) {
	t.Parallel()
	stream := makeTar(t, member{typ: tar.TypeReg, name: "a", data: strings.Repeat("x", 700)}, member{typ: tar.TypeDir, name: "d/"},
		member{typ: tar.TypeReg, name: strings.Repeat("long/", 60) + "f", data: "y"})
	ok := boundaries(t, stream)
	end := len(stream) - 1024
	p, _ := newPush(t, context.Background(), layertar.ApplyOptions{})
	for i := range stream {
		at, err := p.Boundary()
		if err != nil {
			t.Fatalf("at %d: %v", i, err)
		}
		want := ok[i] || i >= end+1024 || i == end+512
		if at != want {
			t.Fatalf("at %d of %d: boundary %v, want %v", i, len(stream), at, want)
		}
		if _, err := p.Write(stream[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if at, err := p.Boundary(); !at || err != nil {
		t.Fatalf("at the end: %v, %v", at, err)
	}
	res, err := p.Finish()
	if err != nil || res.DiffSize != int64(len(stream)) || res.DiffDigest.Encoded() != sum(stream) || res.Entries != 3 {
		t.Fatalf("%+v, %v", res, err)
	}
	if _, err := p.Write([]byte("x")); err == nil {
		t.Error("a write after the end succeeded")
	}
}

func TestPushBoundaryOfFrames(t *testing.T) {
	t.Parallel()
	stream := makeTar(t, member{typ: tar.TypeReg, name: "a", data: strings.Repeat("x", 70000)}, member{typ: tar.TypeReg, name: "b", data: "b"})
	first := 512 + 70144 // the end of member a
	for _, comp := range []string{"gzip -c", "bzip2 -c", "xz -c", "zstd -c", "zstd -c --long=27"} {
		pack := strings.Fields(comp)
		one, two := run(t, bytes.NewReader(stream[:first]), pack[0], pack[1:]...), run(t, bytes.NewReader(stream[first:]), pack[0], pack[1:]...)
		p, _ := newPush(t, context.Background(), layertar.ApplyOptions{})
		for i, b := range append(append([]byte(nil), one...), two...) {
			at, err := p.Boundary()
			if err != nil {
				t.Fatalf("%s: %v", comp, err)
			}
			if want := i == 0 || i == len(one); at != want {
				t.Fatalf("%s at %d (frames %d, %d): boundary %v", comp, i, len(one), len(two), at)
			}
			if _, err := p.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		if at, err := p.Boundary(); !at || err != nil {
			t.Fatalf("%s at the end: %v, %v", comp, at, err)
		}
		if res, err := p.Finish(); err != nil || res.DiffDigest.Encoded() != sum(stream) {
			t.Fatalf("%s: %+v, %v", comp, res, err)
		}
	}
}

func TestPushInAnyPieces(t *testing.T) {
	t.Parallel()
	var ms []member
	for i := range 25 {
		ms = append(ms, member{typ: tar.TypeReg, name: "f" + strings.Repeat("n", i), data: strings.Repeat("z", i*i*i)})
	}
	stream := makeTar(t, ms...)
	packed := map[string][]byte{"": stream}
	for _, comp := range []string{"gzip", "zstd", "bzip2"} {
		packed[comp] = run(t, bytes.NewReader(stream), comp, "-c")
	}
	packed["long"] = run(t, bytes.NewReader(stream), "zstd", "-c", "--long=31")
	rapid.Check(t, func(rt *rapid.T) {
		b := packed[rapid.SampledFrom([]string{"", "gzip", "zstd", "long", "bzip2"}).Draw(rt, "compression")]
		p, _ := newPush(t, context.Background(), layertar.ApplyOptions{})
		for len(b) > 0 {
			n := min(len(b), rapid.IntRange(1, 20000).Draw(rt, "n"))
			if _, err := p.Write(b[:n]); err != nil {
				rt.Fatal(err)
			}
			b = b[n:]
			if _, err := p.Boundary(); err != nil {
				rt.Fatal(err)
			}
		}
		if res, err := p.Finish(); err != nil || res.DiffDigest.Encoded() != sum(stream) || res.Entries != len(ms) {
			rt.Fatalf("%+v, %v", res, err)
		}
	})
}

func TestPushErrors(t *testing.T) {
	t.Parallel()
	p, _ := newPush(t, context.Background(), layertar.ApplyOptions{})
	var err error
	for range 100 {
		if _, err = p.Write(bytes.Repeat([]byte("junk"), 100000)); err != nil {
			break
		}
	}
	if !errors.Is(err, errno.ErrBadStream) {
		t.Fatalf("writing junk: %v", err)
	}
	if _, again := p.Write([]byte("x")); !errors.Is(again, errno.ErrBadStream) {
		t.Errorf("the next write: %v", again)
	}
	if _, berr := p.Boundary(); !errors.Is(berr, errno.ErrBadStream) {
		t.Errorf("boundary: %v", berr)
	}
	if _, ferr := p.Finish(); !errors.Is(ferr, errno.ErrBadStream) {
		t.Errorf("finish: %v", ferr)
	}

	p, _ = newPush(t, context.Background(), layertar.ApplyOptions{})
	if _, err := p.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Finish(); !errors.Is(err, errno.ErrBadStream) || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("a cut-off stream: %v", err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	p, _ = newPush(t, ctx, layertar.ApplyOptions{})
	cancel()
	if _, err := p.Finish(); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Neither Abort at any point nor Finish leaves a goroutine.
func TestPushLeavesNothing(t *testing.T) {
	stream := makeTar(t, member{typ: tar.TypeReg, name: "a", data: strings.Repeat("x", 3<<20)})
	before := runtime.NumGoroutine()
	for _, n := range []int{0, 1, 600, 1 << 20, len(stream)} {
		p, dir := newPush(t, context.Background(), layertar.ApplyOptions{})
		if _, err := p.Write(stream[:n]); err != nil {
			t.Fatal(err)
		}
		p.Abort()
		p.Abort()
		if _, err := p.Finish(); !layertar.Aborted(err) && n < len(stream) {
			t.Errorf("after %d bytes and Abort: %v", n, err)
		}
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
	for range 200 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
}
