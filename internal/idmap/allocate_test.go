package idmap

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// What is allocated is a whole map of the wanted size, of available IDs that
// are not used, and is refused only when there are too few.
func TestAllocate(t *testing.T) {
	t.Parallel()
	spans := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Span {
		return Span{rapid.IntRange(0, 60).Draw(t, "first"), rapid.IntRange(0, 20).Draw(t, "size")}
	}), 0, 6)
	rapid.Check(t, func(t *rapid.T) {
		available, used := spans.Draw(t, "available"), spans.Draw(t, "used")
		size := rapid.IntRange(1, 40).Draw(t, "want")
		free := make([]bool, 100)
		for i := range free {
			in := func(s Span) bool { return i >= s.First && i < s.First+s.Size }
			free[i] = slices.ContainsFunc(available, in) && !slices.ContainsFunc(used, in)
		}
		count, run, longest := 0, 0, 0
		for _, f := range free {
			if run++; !f {
				run = 0
				continue
			}
			count++
			longest = max(longest, run)
		}
		ranges, ok := Allocate(available, used, size)
		if ok != (count >= size) {
			t.Fatalf("%d are free of %d wanted: %v", count, size, ok)
		}
		if !ok {
			return
		}
		if err := Validate(ranges); err != nil {
			t.Fatal(err)
		}
		if longest >= size && len(ranges) != 1 {
			t.Fatalf("%v, though a run of %d is free", ranges, longest)
		}
		for id := range size {
			host, ok := Translate(ranges, id)
			if !ok || !free[host] {
				t.Fatalf("ID %d is mapped to %d, %v", id, host, ok)
			}
		}
		if _, more := Translate(ranges, size); more {
			t.Fatal("more than was wanted")
		}
	})
}
