package layertar

import (
	"encoding/binary"
	"os"
	"slices"
)

const (
	// setMemory is how many entries of a hashSet are in memory; a full memory
	// becomes a run on disk.
	setMemory = 1 << 18
	// setBloom is the size of a run's filter in bits, 16 for each entry: of
	// those that are not there, 1 in 400 costs a look at the disk.
	setBloom = setMemory * 16
	// setWindow is how many entries of a run are read at once. Hashes are
	// spread evenly, so that an entry is within a few hundred of where its
	// value says.
	setWindow = 2048
)

// hashSet is a set of hashes whose memory grows by two bytes an entry (from
// 262,144 on): the rest is in an unlinked temporary file, as sorted runs. It is
// used by one goroutine.
type hashSet struct {
	mem    map[uint64]struct{}
	file   *os.File
	blooms [][]uint64 // of the runs
	buf    []byte
}

func newHashSet() *hashSet { return &hashSet{mem: map[uint64]struct{}{}} }

// has tells whether h was added.
func (s *hashSet) has(h uint64) (bool, error) {
	if _, ok := s.mem[h]; ok {
		return true, nil
	}
	for i, b := range s.blooms {
		if !bloomHas(b, h) {
			continue
		}
		if ok, err := s.search(int64(i), h); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (s *hashSet) add(h uint64) error {
	s.mem[h] = struct{}{}
	if len(s.mem) < setMemory {
		return nil
	}
	return s.spill()
}

// bloomBits are the bits of h in a filter.
func bloomBits(h uint64) [4]uint64 {
	var out [4]uint64
	step := h>>32 | 1
	for i := range out {
		out[i] = h % setBloom
		h += step * 0x9e3779b97f4a7c15
	}
	return out
}

func bloomHas(b []uint64, h uint64) bool {
	for _, k := range bloomBits(h) {
		if b[k/64]>>(k%64)&1 == 0 {
			return false
		}
	}
	return true
}

// spill writes the memory as a run of setMemory entries.
func (s *hashSet) spill() (err error) {
	if s.file == nil {
		if s.file, err = unlinkedTemp(); err != nil {
			return err
		}
	}
	run := make([]uint64, 0, len(s.mem))
	bloom := make([]uint64, setBloom/64)
	for h := range s.mem {
		run = append(run, h)
		for _, k := range bloomBits(h) {
			bloom[k/64] |= 1 << (k % 64)
		}
	}
	slices.Sort(run)
	out := make([]byte, 0, 8*len(run))
	for _, h := range run {
		out = binary.BigEndian.AppendUint64(out, h)
	}
	if _, err := s.file.WriteAt(out, int64(len(s.blooms))*8*setMemory); err != nil {
		return err
	}
	s.blooms = append(s.blooms, bloom)
	clear(s.mem)
	return nil
}

// search looks for h in a run, around the place that its value tells.
func (s *hashSet) search(run int64, h uint64) (bool, error) {
	if s.buf == nil {
		s.buf = make([]byte, 8*setWindow)
	}
	at := int64(h>>46) - setWindow/2 // of 2¹⁸ entries
	for {
		at = min(max(at, 0), setMemory-setWindow)
		if _, err := s.file.ReadAt(s.buf, (run*setMemory+at)*8); err != nil {
			return false, err
		}
		entry := func(i int) uint64 { return binary.BigEndian.Uint64(s.buf[8*i:]) }
		switch {
		case h < entry(0) && at > 0:
			at -= setWindow
			continue
		case h > entry(setWindow-1) && at < setMemory-setWindow:
			at += setWindow
			continue
		}
		lo, hi := 0, setWindow
		for lo < hi {
			if m := (lo + hi) / 2; entry(m) < h {
				lo = m + 1
			} else {
				hi = m
			}
		}
		return lo < setWindow && entry(lo) == h, nil
	}
}

func (s *hashSet) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
