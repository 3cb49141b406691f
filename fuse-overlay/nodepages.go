package fuseoverlay

// nodePages holds nodes by the kernel's numbers, which are given out one after
// the other: by pages, so that it takes little more than a word a node, and
// gives back what has emptied.
type nodePages struct {
	pages   map[uint64]*nodePage
	n, peak int // nodes; and most pages since the map was made
}

// nodePage has the nodes of numbers that differ in their last bits only.
type nodePage struct {
	nodes [1 << pageBits]*node
	n     int
}

// pageBits: a page with a single node left takes half a KiB.
const pageBits = 6

func (t *nodePages) get(id uint64) *node {
	if p := t.pages[id>>pageBits]; p != nil {
		return p.nodes[id%(1<<pageBits)]
	}
	return nil
}

// put adds a node, whose number is new.
func (t *nodePages) put(n *node) {
	p := t.pages[n.id>>pageBits]
	if p == nil {
		if t.pages == nil {
			t.pages = map[uint64]*nodePage{}
		}
		p = &nodePage{}
		t.pages[n.id>>pageBits] = p
		t.peak = max(t.peak, len(t.pages))
	}
	p.nodes[n.id%(1<<pageBits)] = n
	p.n++
	t.n++
}

// del takes a node out, which is in it.
func (t *nodePages) del(n *node) {
	p := t.pages[n.id>>pageBits]
	p.nodes[n.id%(1<<pageBits)] = nil
	t.n--
	if p.n--; p.n > 0 {
		return
	}
	delete(t.pages, n.id>>pageBits)
	if t.peak >= 64 && len(t.pages) <= t.peak/4 { // a Go map never gives its buckets back
		t.pages, t.peak = copied(t.pages), len(t.pages)
	}
}

// all calls f with each node.
func (t *nodePages) all(f func(*node)) {
	for _, p := range t.pages {
		for _, n := range p.nodes {
			if n != nil {
				f(n)
			}
		}
	}
}

// copied returns a map that takes no more than m's entries need.
func copied[K comparable, V any](m map[K]V) map[K]V {
	c := make(map[K]V, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}
