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
	// many answers relations; the slices are replaced, never changed.
	many [numRelations]map[string][]R
	// digests answers relDigest; it is made when it is first asked for.
	digests *lazyIndex[R]
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
	return &set[R]{
		kind:    kind,
		list:    make([]R, 0, size),
		byID:    make(map[string]R, size),
		byName:  make(map[string]R, size/4),
		digests: new(lazyIndex[R]),
	}
}

// lazyIndex is an index of an immutable list.
type lazyIndex[R any] struct {
	once sync.Once
	m    map[string][]R
}

// related returns the records found under a key; nobody changes the slice.
func (s *set[R]) related(rel relation, key string) []R {
	if rel != relDigest {
		return s.many[rel][key]
	}
	s.digests.once.Do(func() {
		s.digests.m = make(map[string][]R)
		for _, r := range s.list {
			r.index(func(k indexKey) {
				if k.rel == relDigest {
					s.digests.m[k.key] = append(s.digests.m[k.key], r)
				}
			})
		}
	})
	return s.digests.m[key]
}

// mutable returns a copy that its caller may change.
func (s *set[R]) mutable() *set[R] {
	c := &set[R]{
		kind:    s.kind,
		list:    slices.Clone(s.list),
		byID:    maps.Clone(s.byID),
		byName:  maps.Clone(s.byName),
		digests: new(lazyIndex[R]),
		ids:     slices.Clone(s.ids),
		opaque:  s.opaque,
	}
	for rel, m := range s.many {
		c.many[rel] = maps.Clone(m)
	}
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
	r.index(func(k indexKey) { s.relate(k, append(slices.Clip(s.many[k.rel][k.key]), r)) })
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
		old := s.many[k.rel][k.key]
		kept := make([]R, 0, len(old))
		for _, o := range old {
			if o != r {
				kept = append(kept, o)
			}
		}
		if len(kept) == 0 {
			delete(s.many[k.rel], k.key)
			return
		}
		s.relate(k, kept)
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
	r.index(func(k indexKey) { s.relate(k, append(s.many[k.rel][k.key], r)) })
}

// relate sets what is found under a key.
func (s *set[R]) relate(k indexKey, list []R) {
	if k.rel == relDigest {
		return
	}
	if s.many[k.rel] == nil {
		s.many[k.rel] = make(map[string][]R)
	}
	s.many[k.rel][k.key] = list
}
