package store

import (
	"slices"
	"strings"
)

// set holds the records of one kind with their indexes. A set that was
// published is immutable; a writer works on a copy (mutable).
type set[R record[R]] struct {
	kind Kind
	// list holds the records in the order of their files: own, volatile,
	// additional stores.
	list   []R
	byID   map[string]R
	byName map[string]R
	// many answers relations; its slices are replaced, never changed.
	many map[indexKey][]R
	// ids is sorted, for searches by prefix.
	ids []string
	// opaque holds the elements of each own file that are no usable record
	// (no ID, an unsafe one, one that a later record has too); they are
	// written back as they are, before the others.
	opaque [2][]opaque
}

// opaque is an element of a file that is kept but not understood.
type opaque struct {
	raw string
	id  string // as far as it is known
	why string
}

func newSet[R record[R]](kind Kind, size int) *set[R] {
	return &set[R]{
		kind:   kind,
		list:   make([]R, 0, size),
		byID:   make(map[string]R, size),
		byName: make(map[string]R, size/4),
		many:   make(map[indexKey][]R, 2*size),
	}
}

// mutable returns a copy that its caller may change.
func (s *set[R]) mutable() *set[R] {
	c := newSet[R](s.kind, len(s.list))
	c.list = append(c.list, s.list...)
	for k, v := range s.byID {
		c.byID[k] = v
	}
	for k, v := range s.byName {
		c.byName[k] = v
	}
	for k, v := range s.many {
		c.many[k] = v
	}
	c.ids = slices.Clone(s.ids)
	c.opaque = s.opaque
	return c
}

// add appends a record with a new ID. Its names are taken from whoever had
// them in the index only; the caller has made the records agree.
func (s *set[R]) add(r R) {
	s.list = append(s.list, r)
	at, _ := slices.BinarySearch(s.ids, r.id())
	s.ids = slices.Insert(s.ids, at, r.id())
	s.link(r)
}

// replace puts r in the place of old, which has the same ID.
func (s *set[R]) replace(old, r R) {
	s.list[slices.Index(s.list, old)] = r
	s.unlink(old)
	s.link(r)
}

func (s *set[R]) remove(r R) {
	at := slices.Index(s.list, r)
	s.list = slices.Delete(s.list, at, at+1)
	if at, ok := slices.BinarySearch(s.ids, r.id()); ok {
		s.ids = slices.Delete(s.ids, at, at+1)
	}
	s.unlink(r)
}

func (s *set[R]) link(r R) {
	s.byID[r.id()] = r
	for _, n := range r.names() {
		s.byName[n] = r
	}
	r.index(func(k indexKey) {
		s.many[k] = append(slices.Clip(s.many[k]), r)
	})
}

func (s *set[R]) unlink(r R) {
	delete(s.byID, r.id())
	for _, n := range r.names() {
		if s.byName[n] == r {
			delete(s.byName, n)
		}
	}
	r.index(func(k indexKey) {
		old := s.many[k]
		kept := make([]R, 0, len(old))
		for _, o := range old {
			if o != r {
				kept = append(kept, o)
			}
		}
		if len(kept) == 0 {
			delete(s.many, k)
			return
		}
		s.many[k] = kept
	})
}

// withPrefix returns the IDs that begin with prefix, at most limit of them.
func (s *set[R]) withPrefix(prefix string, limit int) []string {
	from, _ := slices.BinarySearch(s.ids, prefix)
	to := from
	for to < len(s.ids) && to-from < limit && strings.HasPrefix(s.ids[to], prefix) {
		to++
	}
	return s.ids[from:to]
}

// anyOf returns the object of an ID, or nil.
func (s *set[R]) anyOf(id string) object {
	if r, ok := s.byID[id]; ok {
		return r
	}
	return nil
}

// ownerOf returns the object that has a name, or nil.
func (s *set[R]) ownerOf(name string) object {
	if r, ok := s.byName[name]; ok {
		return r
	}
	return nil
}

// sorted brings ids up to date after records were added with grow.
func (s *set[R]) sorted() {
	s.ids = make([]string, 0, len(s.list))
	for _, r := range s.list {
		s.ids = append(s.ids, r.id())
	}
	slices.Sort(s.ids)
}

// grow is add for a set that is being built: sorted must follow, and slices
// of many are not yet shared.
func (s *set[R]) grow(r R) {
	s.list = append(s.list, r)
	s.byID[r.id()] = r
	for _, n := range r.names() {
		s.byName[n] = r
	}
	r.index(func(k indexKey) { s.many[k] = append(s.many[k], r) })
}
