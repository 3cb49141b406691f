package layertar

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Names come out of a list sorted, whole, with their marks.
func TestNameList(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfDistinct(rapid.StringMatching(`(a|ab|aa|b|é){0,5}.{1,3}`), rapid.ID[string]).Draw(t, "names")
		var l nameList
		for _, n := range names {
			if err := l.add(n, nameMark(len(n)%16)); err != nil {
				t.Fatal(err)
			}
		}
		l.pack()
		want := slices.Sorted(slices.Values(names))
		var got []string
		for {
			n, mark, ok := l.next()
			if !ok {
				break
			}
			if mark != nameMark(len(n)%16) {
				t.Fatalf("%q has the mark %v", n, mark)
			}
			got = append(got, strings.Clone(n))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q, not %q", got, want)
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
