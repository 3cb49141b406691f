package fuseoverlay

import "hash/maphash"

// nameTable finds entries by their names: a hash table with open addressing and
// linear probing, of one word a slot, an entry keeping its own hash. (A Go map
// from names takes three to six times as much, and never shrinks.)
type nameTable struct {
	slots []*entry // a power of two of them, or as few as few names need
	n     int
	seed  maphash.Seed
}

// few is how many names are looked through one by one.
const few = 8

func (t *nameTable) hash(name string) uint32 { return uint32(maphash.String(t.seed, name)) }

// hashed tells whether the entries have their hashes; in a table of few they are
// looked through.
func (t *nameTable) hashed() bool { return len(t.slots) > few }

// get returns the entry of a name, or nil.
func (t *nameTable) get(name string) *entry {
	if !t.hashed() {
		for _, e := range t.slots[:t.n] {
			if e.name == name {
				return e
			}
		}
		return nil
	}
	h := t.hash(name)
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
	slots := 4 * few
	for n >= slots/4*3 {
		slots *= 2
	}
	t.slots = make([]*entry, slots)
}

// replace puts an entry in the place of one of the same name.
func (t *nameTable) replace(old, e *entry) {
	i := 0
	if t.hashed() {
		e.hash = old.hash
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
	for _, e := range t.slots {
		if e != nil {
			f(e)
		}
	}
}
