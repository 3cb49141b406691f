package spill

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"os"
	"slices"
)

const (
	// bloomBits is a run's filter, in bits an entry: of those that are not
	// there, 1 in 400 costs a look at the disk.
	bloomBits = 16
	// window is how many entries of a run are read at once. Hashes are spread
	// evenly, so that an entry is within a few hundred of where its value says.
	window = 2048
	// entrySize is that of an entry on disk: hash and value, big endian.
	entrySize = 16
)

// entry is a hash and what is kept of it.
type entry struct{ hash, value uint64 }

// runs are sorted runs of entries in a file, with a filter each in memory.
type runs struct {
	size   int // entries a run, a power of two of at least window
	file   *os.File
	blooms [][]uint64
	buf    []byte
}

// add writes a run of r.size entries, whose hashes differ.
func (r *runs) add(run []entry) (err error) {
	if r.file == nil {
		if r.file, err = unlinkedTemp(); err != nil {
			return err
		}
	}
	slices.SortFunc(run, func(a, b entry) int { return cmp.Compare(a.hash, b.hash) })
	bloom := make([]uint64, r.size*bloomBits/64)
	out := make([]byte, 0, entrySize*len(run))
	for _, e := range run {
		for _, k := range r.bloomBits(e.hash) {
			bloom[k/64] |= 1 << (k % 64)
		}
		out = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(out, e.hash), e.value)
	}
	if _, err := r.file.WriteAt(out, int64(len(r.blooms))*int64(r.size)*entrySize); err != nil {
		return err
	}
	r.blooms = append(r.blooms, bloom)
	return nil
}

// bloomBits are the bits of h in a filter.
func (r *runs) bloomBits(h uint64) [4]uint64 {
	var out [4]uint64
	step := h>>32 | 1
	for i := range out {
		out[i] = h % uint64(r.size*bloomBits)
		h += step * 0x9e3779b97f4a7c15
	}
	return out
}

func (r *runs) bloomHas(b []uint64, h uint64) bool {
	for _, k := range r.bloomBits(h) {
		if b[k/64]>>(k%64)&1 == 0 {
			return false
		}
	}
	return true
}

// find looks for h in the runs.
func (r *runs) find(h uint64) (value uint64, ok bool, err error) {
	for i, b := range r.blooms {
		if !r.bloomHas(b, h) {
			continue
		}
		if value, ok, err = r.search(int64(i), h); ok || err != nil {
			return value, ok, err
		}
	}
	return 0, false, nil
}

// search looks for h in a run, around the place that its value tells.
func (r *runs) search(run int64, h uint64) (value uint64, ok bool, err error) {
	if r.buf == nil {
		r.buf = make([]byte, entrySize*window)
	}
	size := int64(r.size)
	at := int64(h>>(64-bits.TrailingZeros(uint(r.size)))) - window/2
	for {
		at = min(max(at, 0), size-window)
		if _, err := r.file.ReadAt(r.buf, (run*size+at)*entrySize); err != nil {
			return 0, false, err
		}
		hash := func(i int) uint64 { return binary.BigEndian.Uint64(r.buf[entrySize*i:]) }
		switch {
		case h < hash(0) && at > 0:
			at -= window - 1 // one entry is in both windows: no hash falls between them
			continue
		case h > hash(window-1) && at < size-window:
			at += window - 1
			continue
		}
		lo, hi := 0, window
		for lo < hi {
			if m := (lo + hi) / 2; hash(m) < h {
				lo = m + 1
			} else {
				hi = m
			}
		}
		if lo == window || hash(lo) != h {
			return 0, false, nil
		}
		return binary.BigEndian.Uint64(r.buf[entrySize*lo+8:]), true, nil
	}
}

func (r *runs) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
