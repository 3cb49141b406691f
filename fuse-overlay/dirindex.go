package fuseoverlay

import (
	"slices"
	"sort"
)

// childIndex is what is known of a directory's names. Names get a cookie when
// they come in, which they keep: a listing goes on after the cookie that it
// reached, whatever was made or removed meanwhile, by whomever and for
// however many readers. Guarded by treeMu.
type childIndex struct {
	names nameTable
	// fill, while the index is being made complete, has what was known before.
	fill *filling
	// order has the entries by cookie once complete, removed ones too. Those are
	// taken out a piece at a time: what is before packed is done, up to loose there
	// is nothing, what comes from there on is to be done. Both are 0 at rest.
	order         []*entry
	packed, loose int
	complete      bool
	next          uint64 // cookie of the next entry
	gone          int    // removed ones in order
	kids          int    // entries with a node
	// missing is the name that was last looked up in vain, "" for none: the kernel asks
	// for it again at once when a file is renamed to it, and so does the rename.
	missing string
}

// entry is one name. There is one for each name that is known, as there is a
// node: 48 bytes.
type entry struct {
	name   string
	cookie uint64
	ino    uint64 // d_ino; 0: not known yet
	node   *node
	hash   uint32 // of name, kept by nameTable
	kind   uint16 // type bits; 0: not known yet
	gone   bool   // removed
}

// typ is the entry's type as in st_mode.
func (e *entry) typ() uint32 { return uint32(e.kind) }

// firstCookie follows "." and "..".
const firstCookie = 3

// get returns the entry of a name, or nil.
func (x *childIndex) get(name string) *entry {
	if e := x.names.get(name); e != nil || x.fill == nil {
		return e
	}
	return x.fill.known.get(name)
}

// lacks tells that the directory is known not to have a name, of which get knows
// nothing.
func (x *childIndex) lacks(name string) bool { return x.complete || x.missing == name }

// all calls f with each entry.
func (x *childIndex) all(f func(*entry)) {
	x.names.all(f)
	if x.fill != nil {
		x.fill.known.all(f)
	}
}

// add returns the entry of name, a new one if need be.
func (x *childIndex) add(name string) *entry {
	if e := x.get(name); e != nil {
		return e
	}
	x.missing = ""
	x.next = max(x.next, firstCookie)
	e := &entry{name: name, cookie: x.next}
	x.next++
	x.names.put(e)
	switch {
	case x.complete:
		x.order = append(x.order, e)
	case x.fill != nil:
		x.fill.late = append(x.fill.late, e)
	}
	return e
}

func (x *childIndex) bind(name string, n *node) {
	e := x.add(name)
	if e.node == nil {
		x.kids++
	}
	e.node, e.ino, e.kind = n, n.number(), uint16(n.typ)
}

// unbind says that no node is known for name; the name itself stays, if the
// listing is complete or about to be.
func (x *childIndex) unbind(name string) {
	e := x.get(name)
	if e == nil || e.node == nil {
		return
	}
	e.node = nil
	x.kids--
	if !x.complete && x.fill == nil {
		x.names.del(e)
	}
}

// remove takes the name out of the directory. The index is not being made
// complete: whoever does that holds the directory's lock for reading.
func (x *childIndex) remove(name string) {
	e := x.names.get(name)
	if e == nil {
		return
	}
	if e.node != nil {
		e.node = nil
		x.kids--
	}
	x.names.del(e)
	e.gone = true
	if !x.complete {
		return
	}
	if x.gone++; x.loose > 0 || x.gone > 32 && x.gone > len(x.order)/2 {
		x.compact()
	}
}

// compact takes removed entries out of the next piece of order.
func (x *childIndex) compact() {
	for to := min(x.loose+piece, len(x.order)); x.loose < to; x.loose++ {
		e := x.order[x.loose]
		x.order[x.loose] = nil
		if e.gone {
			x.gone--
			continue
		}
		x.order[x.packed] = e
		x.packed++
	}
	if x.loose < len(x.order) {
		return
	}
	x.order = x.order[:x.packed]
	if x.packed, x.loose = 0, 0; len(x.order) < cap(x.order)/4 {
		x.order = slices.Clone(x.order)
	}
}

// after returns up to len(buf) entries that come after the cookie.
func (x *childIndex) after(cookie uint64, buf []entry) int {
	n := 0
	for _, part := range [][]*entry{x.order[:x.packed], x.order[x.loose:]} {
		i := sort.Search(len(part), func(i int) bool { return part[i].cookie > cookie })
		for ; i < len(part) && n < len(buf); i++ {
			if !part[i].gone {
				buf[n] = *part[i]
				n++
			}
		}
	}
	return n
}

// empty tells whether a complete index has no name.
func (x *childIndex) empty() bool { return x.names.n == 0 }
