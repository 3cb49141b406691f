package layertar

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/unix"
)

// Names come out of a list sorted, whole, with their marks.
func TestNameList(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfDistinct(rapid.StringMatching(`(a|ab|aa|b|é){0,5}.{1,3}`), rapid.ID[string]).Draw(t, "names")
		var l nameList
		var room listRoom
		for range 2 { // the second time with the room of the first
			l.again()
			l.text, l.at = room.text, room.at
			plain := 0
			for _, n := range names {
				mark := nameMark(len(n) % 16)
				if err := l.add([]byte(n), mark, &room); err != nil {
					t.Fatal(err)
				}
				if !mark.white() && mark.typ() != unix.S_IFCHR {
					plain++
				}
			}
			l.pack(&room)
			want := slices.Sorted(slices.Values(names))
			var got []string
			for l.next() {
				n := string(l.last)
				if l.mark != nameMark(len(n)%16) {
					t.Fatalf("%q has the mark %v", n, l.mark)
				}
				got = append(got, n)
			}
			if !slices.Equal(got, want) || l.plain != plain {
				t.Fatalf("%q, not %q; %d plain ones, not %d", got, want, l.plain, plain)
			}
			slices.Reverse(names)
		}
	})
}

// Two long lists are made one after the other, and their comparison ends.
func TestManyNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var want []Change
	for i := range manyNames + 100 {
		name := fmt.Sprintf("f%06d", i)
		if err := os.Symlink("x", filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		want = append(want, Change{"/" + name, Add})
	}
	for _, old := range []string{dir, t.TempDir()} {
		var got []Change
		err := Changes(context.Background(), Source{New: []string{dir}, Old: []string{old}}, func(c Change) error {
			got = append(got, c)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if old == dir && len(got) > 0 || old != dir && !slices.Equal(got, want) {
			t.Errorf("%d changes to %s", len(got), old)
		}
	}
}
