package inomap

import (
	"testing"

	"pgregory.net/rapid"
)

// pinned was computed by another program (Python's hashlib).
const pinned = 0x9a4a572fbe27c54d

func TestNumbersDiffer(t *testing.T) {
	t.Parallel()
	type input struct {
		Key     string
		A, B, C uint64
	}
	seen := map[uint64]input{}
	small := rapid.Uint64Range(0, 3)
	rapid.Check(t, func(t *rapid.T) {
		in := input{rapid.StringN(0, 2, 3).Draw(t, "key"), small.Draw(t, "a"), rapid.Uint64().Draw(t, "b"), small.Draw(t, "c")}
		n := New(in.Key).Number(in.A, in.B, in.C)
		if n <= 1 || n == ^uint64(0) {
			t.Fatalf("reserved number %x for %v", n, in)
		}
		if old, ok := seen[n]; ok && old != in {
			t.Fatalf("%v and %v are both %x", old, in, n)
		}
		seen[n] = in
	})
}

// TestNumbersStay pins the function: a change of it changes what mounts show.
func TestNumbersStay(t *testing.T) {
	t.Parallel()
	if got := New("tree").Number(1, 2, 3); got != New("tree").Number(1, 2, 3) || got == New("tree").Number(3, 2, 1) {
		t.Errorf("not a function of its input: %x", got)
	}
	if got, want := New("").Number(0, 0, 0), uint64(pinned); got != want {
		t.Errorf("number %#x, want %#x", got, want)
	}
}

func BenchmarkNumber(b *testing.B) {
	s := New("key")
	b.ReportAllocs()
	for b.Loop() {
		s.Number(1, 2, 3)
	}
}
