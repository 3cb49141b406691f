package layertar_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// changedTree makes directories of random depth and width in low, and in up what
// a container would leave that changed something in them. Most directories of up are
// told apart from those of low by what is in them only.
func changedTree(t testing.TB, rnd *rand.Rand, up, low string, depth int) {
	t.Helper()
	fine := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(dir, name string) { fine(os.WriteFile(filepath.Join(dir, name), []byte(dir), 0o644)) }
	many := 2 + rnd.IntN(4)
	if rnd.IntN(20) == 0 {
		many = 70 + rnd.IntN(20) // more than are looked through first
	}
	for i := range many {
		name := fmt.Sprintf("%c%d", 'a'+rnd.IntN(3), i)
		write(low, name)
		switch rnd.IntN(12) {
		case 0:
			write(up, whiteout.Name(name))
		case 1:
			write(up, name+"new")
		case 2:
		default:
			write(up, name)
		}
	}
	for i := range rnd.IntN(4) {
		if depth == 0 {
			break
		}
		name := fmt.Sprintf("%c-%d", 'a'+rnd.IntN(3), i)
		here, below := filepath.Join(up, name), filepath.Join(low, name)
		fine(os.Mkdir(here, 0o755))
		fine(os.Mkdir(below, 0o755))
		changedTree(t, rnd, here, below, depth-1)
		when := time.Unix(1_600_000_000, int64(rnd.IntN(1000)))
		switch rnd.IntN(10) {
		case 0:
			fine(os.Chmod(here, 0o700))
		case 1:
			write(here, whiteout.OpaqueName)
		case 2:
			fine(os.RemoveAll(below))
			if rnd.IntN(2) == 0 {
				write(low, name)
			}
			continue
		case 3:
			fine(os.Chtimes(below, when, when.Add(time.Second)))
			fine(os.Chtimes(here, when, when))
			continue
		}
		fine(os.Chtimes(here, when, when))
		fine(os.Chtimes(below, when, when))
	}
}

// TestShownDirectories: a directory that shows by what is in it that it is a change
// is one, as it is when it is compared itself, and is told before what is in it.
func TestShownDirectories(t *testing.T) {
	t.Parallel()
	quiet, first := 0, 0
	for seed := range uint64(24) {
		up, low := t.TempDir(), t.TempDir()
		changedTree(t, rand.New(rand.NewPCG(seed, 2)), up, low, 3)
		s := layertar.Source{Upper: up, UpperStyle: whiteout.Files, Lowers: []string{low}}
		var all, one, two []layertar.Change
		into := func(list *[]layertar.Change) func(layertar.Change) error {
			return func(c layertar.Change) error {
				*list = append(*list, c)
				return nil
			}
		}
		if err := errors.Join(layertar.ChangesOfAll(s, into(&all)), layertar.ChangesAlone(s, into(&one)),
			withContext(layertar.Changes)(s, into(&two))); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(one, two) {
			t.Fatalf("seed %d, by one goroutine and two: %s", seed, cmp.Diff(one, two))
		}
		byPath := cmpopts.SortSlices(func(a, b layertar.Change) bool { return a.Path < b.Path })
		if d := cmp.Diff(all, one, byPath); d != "" {
			t.Fatalf("seed %d: %s", seed, d)
		}
		if !slices.Equal(all, one) {
			first++
		}
		at := map[string]int{}
		for i, c := range one {
			at[c.Path] = i
		}
		for i, c := range one {
			dir, told := at[path.Dir(c.Path)]
			switch {
			case path.Dir(c.Path) == "/":
			case !told:
				quiet++
			case dir > i && c.Kind != layertar.Modify:
				t.Errorf("seed %d: %v before its directory", seed, c)
			}
		}
	}
	if quiet < 20 || first < 5 {
		t.Errorf("only %d changes in directories that are none, %d trees in which directories come earlier", quiet, first)
	}
}
