package fuseoverlay

import "hash/maphash"

// nameTable finds entries by their names: a hash table with open addressing and
// linear probing, of one word a slot, an entry keeping its own hash. (A Go map
// from names takes three to six times as much, and never shrinks.) One of many is
// made of parts, which grow and shrink by themselves: treeMu is held meanwhile.
type nameTable struct {
	slots []*entry // a power of two of them, or as few as few names need
	parts *[parts]nameTable
	n     int
	seed  maphash.Seed
}

const (
	// few is how many names are looked through one by one.
	few = 8
	// most is how many slots a table has that is not made of parts; parts with fewer
	// than least names become one table again.
	most, least = 1 << 16, 1 << 12
	parts       = 256
)

func (t *nameTable) hash(name string) uint32 { return uint32(maphash.String(t.seed, name)) }

// hashed tells whether the entries have their hashes; in a table of few they are
// looked through.
func (t *nameTable) hashed() bool { return t.parts != nil || len(t.slots) > few }

// part returns the part for a hash.
func (t *nameTable) part(h uint32) *nameTable { return &t.parts[h>>24] }

// get returns the entry of a name, or nil.
func (t *nameTable) get(name string) *entry {
	if !t.hashed() {
		return t.find(0, name)
	}
	h := t.hash(name)
	if t.parts != nil {
		return t.part(h).find(h, name)
	}
	return t.find(h, name)
}

// find is get in a table without parts; h is the name's hash if that is hashed.
func (t *nameTable) find(h uint32, name string) *entry {
	if !t.hashed() {
		for _, e := range t.slots[:t.n] {
			if e.name == name {
				return e
			}
		}
		return nil
	}
	for i := t.slot(h); t.slots[i] != nil; i = t.after(i) {
		if e := t.slots[i]; e.hash == h && e.name == name {
			return e
		}
	}
	return nil
}

func (t *nameTable) slot(h uint32) int { return int(h) & (len(t.slots) - 1) }

func (t *nameTable) after(i int) int { return (i + 1) & (len(t.slots) - 1) }

// put adds an entry, whose name is new.
func (t *nameTable) put(e *entry) { t.adopt(e, false) }

// adopt is put; hashed says that e has its hash, which then is only read.
func (t *nameTable) adopt(e *entry, hashed bool) {
	if len(t.slots) >= most && t.n >= len(t.slots)/4*3 {
		t.split()
	}
	if t.parts == nil {
		t.insert(e, hashed)
		return
	}
	if !hashed {
		e.hash = t.hash(e.name)
	}
	t.part(e.hash).insert(e, true)
	t.n++
}

// split makes a table one of parts.
func (t *nameTable) split() {
	old := t.slots
	t.slots = nil
	t.divide(t.n)
	for _, e := range old {
		if e != nil {
			t.part(e.hash).insert(e, true)
		}
	}
}

// divide gives an empty table parts, with room for n entries.
func (t *nameTable) divide(n int) {
	t.parts = new([parts]nameTable)
	for i := range t.parts {
		t.parts[i].seed = t.seed
		t.parts[i].reserve(n/parts + n/parts/8)
	}
}

// join makes a table of parts one without.
func (t *nameTable) join() {
	old := t.parts
	n := t.n
	t.parts, t.n = nil, 0
	t.reserve(n)
	for i := range old {
		old[i].all(func(e *entry) { t.insert(e, true) })
	}
}

// insert is adopt in a table without parts.
func (t *nameTable) insert(e *entry, hashed bool) {
	if !t.hashed() && t.n < few {
		t.slots = append(t.slots, e)
		t.n++
		return
	}
	switch {
	case !t.hashed():
		if t.seed == (maphash.Seed{}) {
			t.seed = maphash.MakeSeed()
		}
		for _, old := range t.slots {
			old.hash = t.hash(old.name)
		}
		t.resize(4 * few)
	case t.n >= len(t.slots)/4*3:
		t.resize(2 * len(t.slots))
	}
	if !hashed {
		e.hash = t.hash(e.name)
	}
	t.place(e)
	t.n++
}

// reserve makes an empty table, which has its seed, large enough for n entries.
func (t *nameTable) reserve(n int) {
	if n <= few {
		return
	}
	if n >= most/4*3 {
		t.divide(n)
		return
	}
	slots := 4 * few
	for n >= slots/4*3 {
		slots *= 2
	}
	t.slots = make([]*entry, slots)
}

// replace puts an entry in the place of one of the same name.
func (t *nameTable) replace(old, e *entry) {
	e.hash = old.hash
	if t.parts != nil {
		t = t.part(e.hash)
	}
	i := 0
	if t.hashed() {
		i = t.slot(e.hash)
	}
	for t.slots[i] != old {
		if i++; i == len(t.slots) {
			i = 0
		}
	}
	t.slots[i] = e
}

func (t *nameTable) place(e *entry) {
	i := t.slot(e.hash)
	for t.slots[i] != nil {
		i = t.after(i)
	}
	t.slots[i] = e
}

// resize moves all into another number of slots.
func (t *nameTable) resize(slots int) {
	old := t.slots
	t.slots = make([]*entry, slots)
	for _, e := range old {
		if e != nil {
			t.place(e)
		}
	}
}

// del takes an entry out, which is in it.
func (t *nameTable) del(e *entry) {
	t.n--
	if t.parts != nil {
		t.part(e.hash).del(e)
		if t.n < least {
			t.join()
		}
		return
	}
	if !t.hashed() {
		for i, have := range t.slots {
			if have == e {
				copy(t.slots[i:], t.slots[i+1:])
				t.slots[t.n] = nil
				t.slots = t.slots[:t.n]
				return
			}
		}
	}
	i := t.slot(e.hash)
	for t.slots[i] != e {
		i = t.after(i)
	}
	// What comes behind the gap and belongs before it moves into it.
	for j := t.after(i); t.slots[j] != nil; j = t.after(j) {
		mask := len(t.slots) - 1
		if (j-t.slot(t.slots[j].hash))&mask >= (j-i)&mask {
			t.slots[i], i = t.slots[j], j
		}
	}
	t.slots[i] = nil
	if len(t.slots) > 4*few && t.n < len(t.slots)/8 {
		t.resize(len(t.slots) / 4)
	}
}

// all calls f with each entry.
func (t *nameTable) all(f func(*entry)) {
	if t.parts != nil {
		for i := range t.parts {
			t.parts[i].all(f)
		}
	}
	for _, e := range t.slots {
		if e != nil {
			f(e)
		}
	}
}
