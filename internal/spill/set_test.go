package spill

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// A map is the oracle; the set is filled until most of it is on disk.
func TestSet(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	const memory = 8 * window
	s := newSet(memory)
	in := map[uint64]struct{}{0: {}, 1: {}, ^uint64(0): {}}
	for len(in) < 3*memory+1000 {
		in[r.Uint64()] = struct{}{}
	}
	for h := range in {
		if err := s.Add(h); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.r.blooms) != 3 {
		t.Errorf("%d runs", len(s.r.blooms))
	}
	for h := range in {
		if ok, err := s.Has(h); err != nil || !ok {
			t.Fatalf("%x: %t, %v", h, ok, err)
		}
	}
	for range 40_000 {
		h := r.Uint64()
		_, want := in[h]
		if ok, err := s.Has(h); err != nil || ok != want {
			t.Fatalf("%x: %t, %v, want %t", h, ok, err, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A map is the oracle of links, too; most are on disk.
func TestLinks(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	const memory = 8 * window
	l := newLinks(memory)
	first := map[inode]string{}
	for i := range 5*memory + 1000 {
		k := inode{r.Uint64N(3), r.Uint64N(3 * memory)}
		name := fmt.Sprintf("some/directory/%d", i)
		got, again, err := l.First(k.dev, k.ino, name)
		if err != nil {
			t.Fatal(err)
		}
		if want, known := first[k]; known != again || got != want {
			t.Fatalf("%v: %q, %t, want %q, %t", k, got, again, want, known)
		}
		if !again {
			first[k] = name
		}
	}
	if len(l.r.blooms) < 2 || !l.names.Spilled() {
		t.Errorf("%d runs on disk", len(l.r.blooms))
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// Two files of one hash are told apart.
func TestLinksOfOneHash(t *testing.T) {
	t.Parallel()
	l := NewLinks()
	h := uint64(7)
	for i := range uint64(3) {
		if err := l.note(h+i, 1, i, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint64(3) {
		if name, same, err := l.record(l.mem[h+i], 1, i); name != fmt.Sprint(i) || !same || err != nil {
			t.Errorf("%d: %q, %t, %v", i, name, same, err)
		}
		if _, same, err := l.record(l.mem[h], 1, i+1); same || err != nil {
			t.Errorf("%d is taken for 0: %v", i+1, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// A spool gives back what was appended, whatever of it is on disk, also
// between appends.
func TestSpool(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	var s Spool
	var all []byte
	check := func() {
		t.Helper()
		off := r.Int64N(int64(len(all)))
		b := make([]byte, r.IntN(3000))
		n, err := s.ReadAt(b, off)
		if want := min(len(b), len(all)-int(off)); n != want || (err != nil) != (n < len(b)) || string(b[:n]) != string(all[off:][:n]) {
			t.Fatalf("at %d of %d: %d of %d bytes, %v", off, len(all), n, want, err)
		}
	}
	for range 600 {
		b := make([]byte, 1+r.IntN(10_000))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		if err := s.Append(b); err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
		check()
	}
	if err := s.Seal(); err != nil || s.Size() != int64(len(all)) || !s.Spilled() {
		t.Fatalf("%d bytes, %v", s.Size(), err)
	}
	for range 600 {
		check()
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
