package layertar

import (
	"math/rand/v2"
	"testing"
)

// A map is the oracle; the set is filled until most of it is on disk.
func TestHashSet(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	s := newHashSet()
	in := map[uint64]struct{}{0: {}, 1: {}, ^uint64(0): {}}
	for len(in) < 3*setMemory+1000 {
		in[r.Uint64()] = struct{}{}
	}
	for h := range in {
		if err := s.add(h); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.blooms) != 3 {
		t.Errorf("%d runs", len(s.blooms))
	}
	for h := range in {
		if ok, err := s.has(h); err != nil || !ok {
			t.Fatalf("%x: %t, %v", h, ok, err)
		}
	}
	for range 300_000 {
		h := r.Uint64()
		_, want := in[h]
		if ok, err := s.has(h); err != nil || ok != want {
			t.Fatalf("%x: %t, %v, want %t", h, ok, err, want)
		}
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}

// Directories come back the last one first, also from disk.
func TestLateDirs(t *testing.T) {
	t.Parallel()
	var l lateDirs
	const n = 20_000
	for i := range n {
		d := lateDir{dir: "some/directory/that/is/deep", offset: int64(i), perm: uint32(i & 0o7777)}
		if i%3 == 0 {
			d.acl = []byte{1, 2, byte(i)}
		}
		if err := l.push(d); err != nil {
			t.Fatal(err)
		}
	}
	i := n
	err := l.drain(func(d *lateDir) error {
		i--
		if d.offset != int64(i) || d.perm != uint32(i&0o7777) || d.dir != "some/directory/that/is/deep" || (d.acl != nil) != (i%3 == 0) {
			t.Fatalf("number %d is %+v", i, d)
		}
		return nil
	})
	if err != nil || i != 0 || l.s.file == nil {
		t.Errorf("%d left, %v", i, err)
	}
	if err := l.s.close(); err != nil {
		t.Error(err)
	}
}
