package spill

// setMemory is how many entries of a Set are in memory; full, they become a
// run on disk.
const setMemory = 1 << 17

// Set is a set of hashes whose memory grows by two bytes an entry (from
// 131,072 on).
type Set struct {
	mem map[uint64]struct{}
	r   runs
}

// NewSet returns an empty set.
func NewSet() *Set { return newSet(setMemory) }

func newSet(memory int) *Set { return &Set{map[uint64]struct{}{}, runs{size: memory}} }

// Has tells whether h was added.
func (s *Set) Has(h uint64) (bool, error) {
	if _, ok := s.mem[h]; ok {
		return true, nil
	}
	_, ok, err := s.r.find(h)
	return ok, err
}

// Add adds h, which may not be there yet.
func (s *Set) Add(h uint64) error {
	s.mem[h] = struct{}{}
	if len(s.mem) < s.r.size {
		return nil
	}
	run := make([]entry, 0, len(s.mem))
	for h := range s.mem {
		run = append(run, entry{hash: h})
	}
	clear(s.mem)
	return s.r.add(run)
}

// Close gives the file back, if there is one.
func (s *Set) Close() error { return s.r.close() }
