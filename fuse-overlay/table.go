package fuseoverlay

import (
	"slices"

	"golang.org/x/sys/unix"
)

// table holds the nodes that the kernel knows, or that a request is at work
// on. Everything in it is guarded by treeMu.
type table struct {
	nodes map[uint64]*node
	byKey map[fileID]*node
	next  uint64
	peak  int
}

// rootID is the kernel's number for the root.
const rootID = 1

// get returns the node with the kernel's number id, or nil.
func (o *Overlay) get(id uint64) *node {
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	return o.table.nodes[id]
}

// hold counts one more look-up of n.
func (o *Overlay) hold(n *node) {
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	n.lookups++
}

// forget takes k look-ups back, and lets go of what nobody holds.
func (o *Overlay) forget(n *node, k uint64) {
	o.treeMu.Lock()
	n.lookups -= min(k, n.lookups)
	dead := o.dropLocked(n, nil)
	o.treeMu.Unlock()
	for _, d := range dead {
		o.release(d)
	}
}

// dropLocked removes n from the table when nothing needs it, and then the
// directories that only it kept. It returns what is to be released outside
// the lock.
func (o *Overlay) dropLocked(n *node, dead []*node) []*node {
	for n != nil && n.lookups == 0 && n != o.root && (n.dir == nil || n.dir.idx.kids == 0) {
		if o.table.nodes[n.id] != n {
			return dead
		}
		delete(o.table.nodes, n.id)
		for _, k := range n.keys {
			if o.table.byKey[k] == n {
				delete(o.table.byKey, k)
			}
		}
		dead = append(dead, n)
		up := n.home.dir
		for _, l := range n.more {
			l.dir.dir.idx.unbind(l.name)
			dead = o.dropLocked(l.dir, dead)
		}
		if up != nil {
			up.dir.idx.unbind(n.home.name)
		}
		n.home, n.more = link{}, nil
		n = up
	}
	o.shrinkLocked()
	return dead
}

// shrinkLocked makes the map anew at a quarter of its peak: a Go map never
// gives its buckets back.
func (o *Overlay) shrinkLocked() {
	t := &o.table
	if t.peak < 4096 || len(t.nodes) > t.peak/4 {
		return
	}
	m := make(map[uint64]*node, len(t.nodes))
	for id, n := range t.nodes {
		m[id] = n
	}
	t.nodes, t.peak = m, len(m)
}

// release gives back what a node that left the table had open.
func (o *Overlay) release(n *node) {
	o.fds.drop(n)
	o.pass.drop(n)
	if err := o.fds.takeLost(n); err != nil {
		o.log.Errorf("a file that nobody has open any more (number %d): %v", n.ino, err)
	}
	if n.isDir() {
		o.tree.cache.drop(n.stack())
	}
	if r := n.orphan.Swap(nil); r != nil {
		o.quota.forgetFile(r, n.isDir())
		_ = r.Close() // O_PATH, or a file without a name: nothing to lose
	}
}

// addLocked puts a new node into the table with one look-up, and binds it.
func (o *Overlay) addLocked(n *node, dir *node, name string) {
	t := &o.table
	n.id, n.lookups = t.next, 1
	t.next++
	t.nodes[n.id] = n
	t.peak = max(t.peak, len(t.nodes))
	for _, k := range n.keys {
		t.byKey[k] = n
	}
	if dir != nil {
		o.bindLocked(n, dir, name)
	}
}

// bindLocked makes name in dir a link of n.
func (o *Overlay) bindLocked(n *node, dir *node, name string) {
	l := link{dir, name}
	dir.dir.idx.bind(name, n)
	if n.home == l {
		return
	}
	for _, m := range n.more {
		if m == l {
			return
		}
	}
	if n.home.dir == nil {
		n.home = l
		return
	}
	n.more = append(n.more, l)
}

// unbindLocked takes the link away; the name may stay listed. It tells whether
// n has another that is known.
func (o *Overlay) unbindLocked(n *node, dir *node, name string) bool {
	dir.dir.idx.unbind(name)
	l := link{dir, name}
	if n.home == l {
		n.home = link{}
		if k := len(n.more); k > 0 {
			n.home, n.more = n.more[k-1], n.more[:k-1]
		}
		return n.home.dir != nil
	}
	for i, m := range n.more {
		if m == l {
			n.more = append(n.more[:i], n.more[i+1:]...)
			break
		}
	}
	return n.home.dir != nil
}

// known returns the node that name in dir is bound to with one more look-up;
// absent tells that the name is known not to be there.
func (o *Overlay) known(dir *node, name string) (n *node, absent bool) {
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	e := dir.dir.idx.entries[name]
	if e == nil {
		return nil, dir.dir.idx.complete
	}
	if e.node != nil {
		e.node.lookups++
	}
	return e.node, false
}

// newNode makes a node that is in no table yet.
func newNode(typ uint32, ino uint64) *node {
	n := &node{typ: typ, ino: ino}
	if typ == unix.S_IFDIR {
		n.dir = &dirState{}
	}
	return n
}

// addKeyLocked makes n known by k too.
func (o *Overlay) addKeyLocked(n *node, k fileID) {
	if !slices.Contains(n.keys, k) {
		n.keys = append(n.keys, k)
		o.table.byKey[k] = n
	}
}
