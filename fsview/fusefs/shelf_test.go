package fusefs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/vnode"
)

// Who has read a part of a directory, and goes on when many others were read and what
// he read last is gone, comes to the end, with each entry that is left once: as on
// any filesystem.
func TestPausedReader(t *testing.T) {
	t.Parallel()
	for _, kept := range []bool{true, false} {
		t.Run(fmt.Sprint("kept=", kept), func(t *testing.T) {
			t.Parallel()
			var gen atomic.Uint64
			kids := map[string]vnode.Node{}
			for i := range 2 * shelfLists {
				kids[fmt.Sprint("other", i)] = newRoster(fmt.Sprint("other", i), &gen, 300)
			}
			for name, count := range map[string]int{"big": 1500, "small": 70} {
				d := newRoster(name, &gen, count)
				if kids[name] = d; kept {
					kids[name] = listed{d}
				}
				kids["outside "+name] = registrar{of: d}
			}
			dir, _ := mounted(t, newDir("/", &calls{}, kids), Options{Generation: gen.Load})
			r := fusetest.Child(t, "TestPausedReaderChild", "LIST="+dir)
			if r.Status != 0 {
				t.Errorf("%s\n%s", r.Out, r.Err)
			}
		})
	}
}

// TestPausedReaderChild reads for TestPausedReader.
func TestPausedReaderChild(t *testing.T) {
	if !fusetest.IsChild() {
		t.Skip("runs as a child of TestPausedReader")
	}
	dir := os.Getenv("LIST")
	for name, count := range map[string]int{"big": 1500, "small": 70} {
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		all := permanent(count)
		seen := more(t, fd)
		if len(seen) == 0 || len(seen) >= count {
			t.Fatalf("%s: %d of %d entries at once", name, len(seen), count)
		}
		others, err := filepath.Glob(dir + "/other*")
		must(t, err)
		for _, other := range others {
			if n := len(namesIn(t, other)); n != 300 {
				t.Errorf("%s: %d entries", other, n)
			}
		}
		// The last that was read, those before it, and the next: not the one after them.
		at := slices.Index(all, seen[len(seen)-1])
		gone := all[at-3 : at+3]
		for _, n := range gone {
			must(t, os.Remove(filepath.Join(dir, "outside "+name, n)))
		}
		for {
			next := more(t, fd)
			if len(next) == 0 {
				break
			}
			seen = append(seen, next...)
		}
		must(t, unix.Close(fd))
		slices.Sort(seen)
		want := slices.Delete(slices.Clone(all), at+1, at+3)
		if !slices.Equal(seen, want) {
			t.Errorf("%s: %d entries, want %d; gone are %v", name, len(seen), len(want), gone)
		}
	}
}

// more reads on in an open directory; no names are its end.
func more(t *testing.T, fd int) []string {
	t.Helper()
	buf := make([]byte, 2048)
	n, err := unix.Getdents(fd, buf)
	must(t, err)
	_, _, names := unix.ParseDirent(buf[:n], -1, nil)
	return names
}
