package fusefs

import (
	"slices"
	"sync"
)

// shelf keeps what was read last, and longest what took several answers. It is
// bounded: who finds no list there reads the directory again. Of the lists that had to
// go it still has the keys, so that who reads on behind an entry that is gone meanwhile
// finds the next that is there.
type shelf struct {
	mu      sync.Mutex
	lists   []shelved // the oldest first; guarded by mu
	entries int       // in all of them; guarded by mu
	parts   boneyard  // lists that took several answers; guarded by mu
	wholes  boneyard  // lists that took one; guarded by mu
}

type shelved struct {
	in    *inode
	l     *listing
	whole bool // it was one answer: who goes on with it has sought back
}

// The bounds of a shelf; one list is kept whatever its length. Of keys there are two
// boneyards of 4 MiB at most.
const (
	shelfLists   = 64
	shelfEntries = 1 << 18
	shelfBones   = 4096
	shelfKeys    = 1 << 20
)

// bones are the keys of a list in its order.
type bones struct {
	id   uint64 // of the inode, which may be forgotten
	keys []uint32
}

// boneyard keeps the last bones that came in.
type boneyard struct {
	list []bones // the oldest first
	keys int     // in all of them
}

func (y *boneyard) bury(in *inode, l *listing) {
	b := bones{in.id, make([]uint32, len(l.entries))}
	for i, d := range l.entries {
		b.keys[i] = d.key
	}
	y.list = append(y.list, b)
	y.keys += len(b.keys)
	for len(y.list) > shelfBones || y.keys > shelfKeys && len(y.list) > 1 {
		y.keys -= len(y.list[0].keys)
		y.list[0] = bones{}
		y.list = y.list[1:]
	}
}

// behind returns the keys that stood behind key in the newest list of in that had it.
func (y *boneyard) behind(in *inode, key uint32) []uint32 {
	for _, b := range slices.Backward(y.list) {
		if b.id != in.id {
			continue
		}
		if i := slices.Index(b.keys, key); i >= 0 {
			return b.keys[i+1:]
		}
	}
	return nil
}

// after finds where to go on in l, a list of in that was read anew, behind an entry
// that is not there any more: at the first of those that stood behind it and are.
func (s *shelf) after(in *inode, l *listing, place uint64) (int, bool) {
	key := uint32(place & lastKey)
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := s.parts.behind(in, key)
	if rest == nil {
		rest = s.wholes.behind(in, key)
	}
	if rest == nil {
		return 0, false
	}
	at := make(map[uint32]int, len(l.entries))
	for i, d := range l.entries {
		at[d.key] = i
	}
	for _, k := range rest {
		if i, ok := at[k]; ok {
			return i, true
		}
	}
	return len(l.entries), true
}

// get returns a list of in that has the entry before a place, best the one that
// made the place, else the newest; or nil.
func (s *shelf) get(in *inode, place uint64) (best *listing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range slices.Backward(s.lists) {
		if x.in != in || best != nil && !x.l.hasTag(place) {
			continue
		}
		if _, ok := x.l.behind(place); ok {
			best = x.l
			if best.hasTag(place) {
				break
			}
		}
	}
	return best
}

// put makes l the newest list of in; one like it goes.
func (s *shelf) put(in *inode, l *listing, whole bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	like := func(x shelved) bool {
		return x.in == in && (&x.l.entries[0] == &l.entries[0] || x.l.tag == l.tag && slices.Equal(x.l.entries, l.entries))
	}
	if i := slices.IndexFunc(s.lists, like); i >= 0 {
		l, whole = s.lists[i].l, whole && s.lists[i].whole
		s.removeLocked(i)
	}
	s.lists = append(s.lists, shelved{in, l, whole})
	s.entries += len(l.entries)
	for len(s.lists) > 1 && (len(s.lists) > shelfLists || s.entries > shelfEntries) {
		s.buryLocked(max(0, slices.IndexFunc(s.lists[:len(s.lists)-1], func(x shelved) bool { return x.whole })))
	}
}

// buryLocked keeps the keys of list i only.
func (s *shelf) buryLocked(i int) {
	x := s.lists[i]
	if x.whole {
		s.wholes.bury(x.in, x.l)
	} else {
		s.parts.bury(x.in, x.l)
	}
	s.removeLocked(i)
}

func (s *shelf) removeLocked(i int) {
	s.entries -= len(s.lists[i].l.entries)
	s.lists = slices.Delete(s.lists, i, i+1)
}
