package fuseoverlay

import (
	"sort"
)

// childIndex is what is known of a directory's names. Names get a cookie when
// they come in, which they keep: a listing goes on after the cookie that it
// reached, whatever was made or removed meanwhile, by whomever and for
// however many readers. Guarded by treeMu.
type childIndex struct {
	entries map[string]*entry
	// order has the entries by cookie once complete, removed ones too.
	order    []*entry
	complete bool
	next     uint64 // cookie of the next entry
	gone     int    // removed ones in order
	kids     int    // entries with a node
}

// entry is one name.
type entry struct {
	name   string
	cookie uint64
	gone   bool   // removed
	ino    uint64 // d_ino; 0: not known yet
	typ    uint32 // type bits; 0: not known yet
	node   *node
}

// firstCookie follows "." and "..".
const firstCookie = 3

// add returns the entry of name, a new one if need be.
func (x *childIndex) add(name string) *entry {
	if e := x.entries[name]; e != nil {
		return e
	}
	if x.entries == nil {
		x.entries = map[string]*entry{}
		x.next = max(x.next, firstCookie)
	}
	e := &entry{name: name, cookie: x.next}
	x.next++
	x.entries[name] = e
	if x.complete {
		x.order = append(x.order, e)
	}
	return e
}

func (x *childIndex) bind(name string, n *node) {
	e := x.add(name)
	if e.node == nil {
		x.kids++
	}
	e.node, e.ino, e.typ = n, n.ino, n.typ
}

// unbind says that no node is known for name; the name itself stays, if the
// listing is complete.
func (x *childIndex) unbind(name string) {
	e := x.entries[name]
	if e == nil || e.node == nil {
		return
	}
	e.node = nil
	x.kids--
	if !x.complete {
		delete(x.entries, name)
		if len(x.entries) == 0 {
			x.entries = nil
		}
	}
}

// remove takes the name out of the directory.
func (x *childIndex) remove(name string) {
	e := x.entries[name]
	if e == nil {
		return
	}
	if e.node != nil {
		e.node = nil
		x.kids--
	}
	delete(x.entries, name)
	e.gone = true
	if !x.complete {
		return
	}
	if x.gone++; x.gone > 32 && x.gone > len(x.order)/2 {
		x.compact()
	}
}

func (x *childIndex) compact() {
	kept := x.order[:0]
	for _, e := range x.order {
		if !e.gone {
			kept = append(kept, e)
		}
	}
	clear(x.order[len(kept):])
	x.order, x.gone = kept, 0
}

// finish makes the index complete: names holds every name with its type.
func (x *childIndex) finish(names []dirName) {
	if x.complete {
		return
	}
	for i := range names {
		e := x.add(names[i].name)
		if e.node == nil {
			e.typ, e.ino = names[i].typ, names[i].ino
		}
	}
	x.order = make([]*entry, 0, len(x.entries))
	for _, e := range x.entries {
		x.order = append(x.order, e)
	}
	sort.Slice(x.order, func(i, j int) bool { return x.order[i].cookie < x.order[j].cookie })
	x.complete = true
}

// after returns up to len(buf) entries that come after the cookie.
func (x *childIndex) after(cookie uint64, buf []entry) int {
	i := sort.Search(len(x.order), func(i int) bool { return x.order[i].cookie > cookie })
	n := 0
	for ; i < len(x.order) && n < len(buf); i++ {
		if !x.order[i].gone {
			buf[n] = *x.order[i]
			n++
		}
	}
	return n
}

// empty tells whether a complete index has no name.
func (x *childIndex) empty() bool { return len(x.entries) == 0 }

// dirName is a name as a listing of the layers finds it; ino 0: to be found; typ
// 0: to be found by a look-up.
type dirName struct {
	name string
	typ  uint32
	ino  uint64
}
