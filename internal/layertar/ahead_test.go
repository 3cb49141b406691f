package layertar_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// wideTree fills dir with directories of many subdirectories, with files,
// whiteouts, opaque marks, symlinks, and hard links within and between them.
func wideTree(t testing.TB, rnd *rand.Rand, dir string, depth int, files *[]string) {
	t.Helper()
	fine := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 + rnd.IntN(9) {
		name := filepath.Join(dir, fmt.Sprintf("%c%d", 'a'+rnd.IntN(26), i))
		switch n := rnd.IntN(10); {
		case n < 5 && depth > 0:
			fine(os.Mkdir(name, 0o755))
			wideTree(t, rnd, name, depth-1, files)
			if rnd.IntN(8) == 0 {
				fine(os.WriteFile(filepath.Join(name, whiteout.OpaqueName), nil, 0o644))
			}
		case n == 5:
			fine(os.WriteFile(filepath.Join(dir, whiteout.Name(filepath.Base(name))), nil, 0o644))
		case n == 6 && len(*files) > 0:
			fine(os.Link((*files)[rnd.IntN(len(*files))], name))
		case n == 7:
			fine(os.Symlink("to", name))
		default:
			fine(os.WriteFile(name, bytes.Repeat([]byte("x"), rnd.IntN(3000)), 0o644))
			*files = append(*files, name)
		}
	}
}

// outcome is all that a source says, by the functions that are given.
func outcome(t testing.TB, s layertar.Source, changes func(layertar.Source, func(layertar.Change) error) error,
	size func(layertar.Source) (int64, error), diff func(io.Writer, layertar.Source) error,
) (list []layertar.Change, total int64, stream []byte) {
	t.Helper()
	errC := changes(s, func(c layertar.Change) error {
		list = append(list, c)
		return nil
	})
	total, errS := size(s)
	var out bytes.Buffer
	if err := errors.Join(errC, errS, diff(&out, s)); err != nil {
		t.Fatal(err)
	}
	return list, total, out.Bytes()
}

func withContext[T any](f func(context.Context, layertar.Source, T) error) func(layertar.Source, T) error {
	return func(s layertar.Source, x T) error { return f(context.Background(), s, x) }
}

// TestAhead: two goroutines say what one says, to the byte, also where what is
// found ahead is more than is kept.
func TestAhead(t *testing.T) {
	t.Parallel()
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("one processor: nothing is made ahead")
	}
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		up, low, base := t.TempDir(), t.TempDir(), t.TempDir()
		for _, dir := range []string{up, low, base} {
			wideTree(t, rnd, dir, 3, &[]string{})
		}
		if seed%4 == 0 {
			last := filepath.Join(up, "zz", "z")
			for i := range 9 {
				if err := os.MkdirAll(fmt.Sprintf("%s%d", last, i), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(fmt.Sprintf("%s%d/large", last, i), bytes.Repeat([]byte("large"), 200_000), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		s := layertar.Source{Upper: up, UpperStyle: whiteout.Files, Lowers: []string{low, base}}
		wantList, wantSize, want := outcome(t, s, layertar.ChangesAlone, layertar.SizeAlone, layertar.GenerateAlone)
		if len(wantList) < 20 {
			t.Fatalf("only %d changes", len(wantList))
		}
		for range 2 {
			list, size, stream := outcome(t, s, withContext(layertar.Changes),
				func(s layertar.Source) (int64, error) { return layertar.Size(context.Background(), s) },
				func(w io.Writer, s layertar.Source) error { return layertar.Generate(context.Background(), w, s) })
			if d := cmp.Diff(wantList, list); d != "" {
				t.Fatalf("seed %d: %s", seed, d)
			}
			if size != wantSize || !bytes.Equal(stream, want) {
				t.Fatalf("seed %d: size %d for %d, stream of %d bytes for %d", seed, size, wantSize, len(stream), len(want))
			}
		}
	}
}

// TestAheadEnds: an error of the user, or the end of the context, ends both
// goroutines; descriptors are given back, and a broken entry is named.
func TestAheadEnds(t *testing.T) {
	t.Parallel()
	up := t.TempDir()
	wideTree(t, rand.New(rand.NewPCG(7, 7)), up, 3, &[]string{})
	for i := range 30 {
		if err := os.MkdirAll(fmt.Sprintf("%s/zz/%d", up, i), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := layertar.Source{Upper: up, UpperStyle: whiteout.Files}
	all := 0
	if err := layertar.Changes(context.Background(), s, func(layertar.Change) error { all++; return nil }); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	for at := 0; at < all; at += 1 + all/100 {
		n := 0
		if err := layertar.Changes(context.Background(), s, func(layertar.Change) error {
			if n++; n > at {
				return stop
			}
			return nil
		}); !errors.Is(err, stop) || n != at+1 {
			t.Fatalf("at %d: %v after %d", at, err, n)
		}
		ctx, cancel := context.WithCancelCause(context.Background())
		n = 0
		err := layertar.Changes(ctx, s, func(layertar.Change) error {
			if n++; n > at {
				cancel(stop)
			}
			return nil
		})
		if cancel(nil); err != nil && !errors.Is(err, stop) {
			t.Fatalf("at %d: %v", at, err)
		}
	}
}
