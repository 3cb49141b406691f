package fuseoverlay

import (
	"slices"

	"golang.org/x/sys/unix"
)

// table holds the nodes that the kernel knows, or that a request is at work
// on. Everything in it is guarded by treeMu.
type table struct {
	nodes nodePages
	byKey map[fileID]*node
	keys  int // most of byKey since it was made
	next  uint64
	freed int // nodes and names that were let go of since memory was given back
	back  giveBack
}

// rootID is the kernel's number for the root.
const rootID = 1

// get returns the node with the kernel's number id, or nil.
func (o *Overlay) get(id uint64) *node {
	o.asked.Add(1)
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	return o.table.nodes.get(id)
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
		if o.table.nodes.get(n.id) != n {
			return dead
		}
		o.table.nodes.del(n)
		o.table.freed++
		if n.dir != nil {
			o.table.freed += n.dir.idx.names.n
		}
		for _, k := range n.keys() {
			if o.table.byKey[k] == n {
				delete(o.table.byKey, k)
			}
		}
		dead = append(dead, n)
		up := n.home.dir
		for _, l := range n.more() {
			l.dir.dir.idx.unbind(l.name)
			dead = o.dropLocked(l.dir, dead)
		}
		if up != nil {
			up.dir.idx.unbind(n.home.name)
		}
		n.home = link{}
		n.setMore(nil)
		n = up
	}
	o.shrinkLocked()
	return dead
}

// shrinkLocked gives back what the table needs no more.
func (o *Overlay) shrinkLocked() {
	t := &o.table
	if t.keys >= 4096 && len(t.byKey) <= t.keys/4 { // a Go map never gives its buckets back
		t.byKey, t.keys = copied(t.byKey), len(t.byKey)
	}
	if t.freed >= manyFreed && t.freed >= t.nodes.n {
		t.freed = 0
		t.back.soon()
	}
}

// release gives back what a node that left the table had open.
func (o *Overlay) release(n *node) {
	o.earlyCopies.drop(n)
	o.fds.drop(n)
	o.pass.drop(n)
	if err := o.fds.takeLost(n); err != nil {
		o.log.Errorf("a file that nobody has open any more (number %d): %v", n.number(), err)
	}
	if n.isDir() {
		o.tree.cache.drop(n.stack())
	}
	o.letGo(n)
}

// addLocked puts a new node into the table with one look-up, and binds it.
func (o *Overlay) addLocked(n *node, dir *node, name string) {
	t := &o.table
	n.id, n.lookups = t.next, 1
	t.next++
	t.nodes.put(n)
	for _, k := range n.keys() {
		t.byKey[k] = n
	}
	t.keys = max(t.keys, len(t.byKey))
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
	for _, m := range n.more() {
		if m == l {
			return
		}
	}
	if n.home.dir == nil {
		n.home = l
		return
	}
	n.setMore(append(n.more(), l))
}

// unbindLocked takes the link away; the name may stay listed. It tells whether
// n has another that is known.
func (o *Overlay) unbindLocked(n *node, dir *node, name string) bool {
	dir.dir.idx.unbind(name)
	l := link{dir, name}
	if n.home == l {
		n.home = link{}
		if more := n.more(); len(more) > 0 {
			n.home = more[len(more)-1]
			n.setMore(more[:len(more)-1])
		}
		return n.home.dir != nil
	}
	for i, m := range n.more() {
		if m == l {
			n.setMore(append(n.more()[:i], n.more()[i+1:]...))
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
	e := dir.dir.idx.get(name)
	if e == nil {
		return nil, dir.dir.idx.lacks(name)
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
	if !slices.Contains(n.keys(), k) {
		n.addKey(k)
		o.table.byKey[k] = n
		o.table.keys = max(o.table.keys, len(o.table.byKey))
	}
}
