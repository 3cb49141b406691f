package store

import (
	"maps"
	"slices"
	"strings"
	"sync"
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
	// many answers relations, but for relDigest, and digests that one; each
	// is made when it is first asked for. Slices are replaced, never changed.
	many, digests *lazyIndex[R]
	// ids is sorted, for searches by prefix.
	ids []string
	// opaque holds the elements of each own file that are no usable record
	// (no ID, an unsafe one, one that a later record has too); they are
	// written back as they are, before the others.
	opaque [numFiles][]opaque
}

// opaque is an element of a file that is kept but not understood.
type opaque struct {
	raw string
	id  string // as far as it is known
	why string
}

func newSet[R record[R]](kind Kind, size int) *set[R] {
	s := &set[R]{
		kind:    kind,
		list:    make([]R, 0, size),
		byID:    make(map[string]R, size),
		byName:  make(map[string]R, size/4),
		many:    new(lazyIndex[R]),
		digests: new(lazyIndex[R]),
	}
	s.index(false) // so that link keeps it up to date
	return s
}

// lazyIndex is an index of a list that does not change before it is made.
type lazyIndex[R any] struct {
	once sync.Once
	m    map[indexKey][]R // valid after once
}

// related returns the records found under a key; nobody changes the slice.
func (s *set[R]) related(rel relation, key string) []R {
	return s.index(rel == relDigest).m[indexKey{rel, key}]
}

// index returns the index of digests, or that of the other relations.
func (s *set[R]) index(digests bool) *lazyIndex[R] {
	x := s.many
	if digests {
		x = s.digests
	}
	x.once.Do(func() {
		x.m = make(map[indexKey][]R, len(s.list))
		for _, r := range s.list {
			r.index(func(k indexKey) {
				if digests == (k.rel == relDigest) {
					x.m[k] = append(x.m[k], r)
				}
			})
		}
	})
	return x
}

// mutable returns a copy that its caller may change.
func (s *set[R]) mutable() *set[R] {
	c := &set[R]{
		kind:    s.kind,
		list:    slices.Clone(s.list),
		byID:    maps.Clone(s.byID),
		byName:  maps.Clone(s.byName),
		many:    new(lazyIndex[R]),
		digests: new(lazyIndex[R]),
		ids:     slices.Clone(s.ids),
		opaque:  s.opaque,
	}
	c.many.once.Do(func() { c.many.m = maps.Clone(s.index(false).m) })
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
	s.digests = new(lazyIndex[R])
	r.index(func(k indexKey) {
		if m := s.index(false).m; k.rel != relDigest {
			m[k] = append(slices.Clip(m[k]), r)
		}
	})
}

func (s *set[R]) unlink(r R) {
	delete(s.byID, r.id())
	for _, n := range r.names() {
		if s.byName[n] == r {
			delete(s.byName, n)
		}
	}
	s.digests = new(lazyIndex[R])
	r.index(func(k indexKey) {
		m := s.index(false).m
		if kept := slices.DeleteFunc(slices.Clone(m[k]), func(o R) bool { return o == r }); len(kept) > 0 {
			m[k] = kept
		} else {
			delete(m, k)
		}
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

// sorted completes a set after records were added with grow.
func (s *set[R]) sorted() {
	s.many = new(lazyIndex[R])
	s.ids = make([]string, 0, len(s.list))
	for _, r := range s.list {
		s.ids = append(s.ids, r.id())
	}
	slices.Sort(s.ids)
}

// grow is add for a set that is being built: sorted must follow.
func (s *set[R]) grow(r R) {
	s.list = append(s.list, r)
	s.byID[r.id()] = r
	for _, n := range r.names() {
		s.byName[n] = r
	}
}
