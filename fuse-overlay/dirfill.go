package fuseoverlay

import "hash/maphash"

// filling is the work of making a directory's index complete, of which treeMu is
// held for small pieces only, however large the directory is: begin, build
// without the lock, join until there is no more. Until then the index is not
// complete: names come in (late) and lose their nodes, and none is removed, since
// whoever fills holds the directory's lock for reading. Cookies mean nothing
// before the index is complete, so all are given out anew.
type filling struct {
	// known is the index's table from before. It does not change any more, only
	// its entries do.
	known nameTable
	late  []*entry // that came in since begin; guarded by treeMu
	names nameTable
	order []*entry
	// joined of late are in names and order.
	joined int
	done   chan struct{} // closed once the index is complete
}

// piece is how many entries are joined at a time.
const piece = 1024

// dirName is a name as a listing of the layers finds it; ino 0: to be found; typ
// 0: to be found by a look-up.
type dirName struct {
	name string
	typ  uint32
	ino  uint64
}

// begin starts to fill an index that is neither complete nor being filled.
func (x *childIndex) begin() *filling {
	f := &filling{known: x.names, done: make(chan struct{})}
	// One seed for all tables: an entry has one hash.
	seed := f.known.seed
	if seed == (maphash.Seed{}) {
		seed = maphash.MakeSeed()
	}
	f.names.seed = seed
	x.names, x.fill = nameTable{seed: seed}, f
	return f
}

// build puts what is known together with the names of a listing. It needs no
// lock: it changes nothing that others see.
func (f *filling) build(names []dirName) {
	fresh := 0
	for i := range names {
		if f.known.get(names[i].name) == nil {
			fresh++
		}
	}
	room := f.known.n + fresh
	room += min(room/8, piece) // for what comes late
	f.names.reserve(room)
	f.order = make([]*entry, 0, room)
	f.known.all(func(e *entry) {
		f.names.adopt(e, f.known.hashed())
		f.append(e)
	})
	for i := range names {
		n := &names[i]
		if f.names.get(n.name) == nil {
			e := &entry{name: n.name, kind: uint16(n.typ), ino: n.ino}
			f.names.put(e)
			f.append(e)
		}
	}
}

// append gives e the next cookie.
func (f *filling) append(e *entry) {
	e.cookie = firstCookie + uint64(len(f.order))
	f.order = append(f.order, e)
}

// join takes in a piece of what came late, and once nothing is left makes the
// index complete. It tells whether it is to be called again.
func (x *childIndex) join(f *filling) (more bool) {
	to := min(len(f.late), f.joined+piece)
	for _, e := range f.late[f.joined:to] {
		if listed := f.names.get(e.name); listed != nil {
			e.cookie = listed.cookie
			f.names.replace(listed, e)
			f.order[e.cookie-firstCookie] = e
			continue
		}
		f.names.put(e)
		f.append(e)
	}
	if f.joined = to; to < len(f.late) {
		return true
	}
	x.names, x.order, x.next = f.names, f.order, firstCookie+uint64(len(f.order))
	x.complete, x.fill = true, nil
	close(f.done)
	return false
}
