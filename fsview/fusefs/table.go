package fusefs

import (
	"maps"
	"reflect"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/plyfs/plyfs/internal/vnode"
)

// inode is one file that the kernel knows. id, ino and node never change.
type inode struct {
	id, ino uint64
	node    vnode.Node

	lookups uint64         // guarded by table.mu
	parent  uint64         // Ino of the directory it was found in first; guarded by table.mu
	valid   vnode.Validity // of its attributes, as last told; guarded by table.mu
	armed   bool           // the kernel may believe its attributes until the store changes; guarded by table.mu
	open    []*handle      // guarded by table.mu
	copied  *copied        // of a directory's list; made at its first READDIR; guarded by table.mu
}

// table maps node IDs to inodes and back.
type table struct {
	mu    sync.Mutex
	next  uint64              // guarded by mu
	byID  map[uint64]*inode   // guarded by mu
	byIno map[uint64]*inode   // guarded by mu
	armed map[*inode]struct{} // guarded by mu
	peak  int                 // most inodes since the maps were made; guarded by mu
}

func newTable(root vnode.Node) *table {
	t := &table{next: fuse.FUSE_ROOT_ID + 1, byID: map[uint64]*inode{}, byIno: map[uint64]*inode{}, armed: map[*inode]struct{}{}}
	in := &inode{id: fuse.FUSE_ROOT_ID, ino: root.Ino(), node: root, lookups: 1, parent: root.Ino()}
	if _, outside := root.(Outsider); !outside {
		in.valid = vnode.ValidStore // every path goes through it: nobody looks it up
	}
	t.byID[in.id], t.byIno[in.ino] = in, in
	return t
}

// get returns the inode of a node ID, or nil.
func (t *table) get(id uint64) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// look counts one look-up of node and returns its inode. A second node of a
// known Ino is dropped in favour of the first.
func (t *table) look(node vnode.Node, parent uint64) *inode {
	ino := node.Ino()
	t.mu.Lock()
	in := t.byIno[ino]
	if in == nil {
		in = &inode{id: t.next, ino: ino, node: node, parent: parent}
		t.next++
		t.byID[in.id], t.byIno[ino] = in, in
		t.peak = max(t.peak, len(t.byID))
	}
	in.lookups++
	t.mu.Unlock()
	if !sameNode(in.node, node) {
		forgetNode(node)
	}
	return in
}

// detach makes the next look-up of ino a new inode and returns the present one,
// or nil. The kernel marks a removed directory dead for good, and trees use a
// number again: a directory of a host at once, an object that is made again
// with its old ID later. It comes before the removal: afterwards another
// process may have the number already.
func (t *table) detach(ino uint64) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	in := t.byIno[ino]
	if in == nil || in.id == fuse.FUSE_ROOT_ID {
		return nil
	}
	delete(t.byIno, ino)
	return in
}

// attach undoes detach after a removal that failed.
func (t *table) attach(in *inode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if in != nil && t.byID[in.id] == in && t.byIno[in.ino] == nil {
		t.byIno[in.ino] = in
	}
}

// drop forgets a node that was found and not counted, unless it is the very
// one that its inode holds.
func (t *table) drop(node vnode.Node) {
	t.mu.Lock()
	in := t.byIno[node.Ino()]
	t.mu.Unlock()
	if in == nil || !sameNode(in.node, node) {
		forgetNode(node)
	}
}

// ghost counts one look-up of a node that has a node ID of its own, whatever
// other node has its Ino.
func (t *table) ghost(node vnode.Node, parent uint64) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	in := &inode{id: t.next, node: node, ino: node.Ino(), parent: parent, lookups: 1}
	t.next++
	t.byID[in.id] = in
	return in
}

// forget takes n look-ups back.
func (t *table) forget(id, n uint64) {
	t.mu.Lock()
	in := t.byID[id]
	if in == nil || id == fuse.FUSE_ROOT_ID {
		t.mu.Unlock()
		return
	}
	in.lookups -= min(n, in.lookups)
	gone := in.lookups == 0
	if gone {
		t.removeLocked(in)
	}
	t.mu.Unlock()
	if gone {
		forgetNode(in.node)
	}
}

func (t *table) removeLocked(in *inode) {
	delete(t.byID, in.id)
	if t.byIno[in.ino] == in {
		delete(t.byIno, in.ino)
	}
	delete(t.armed, in)
	in.armed = false
	if t.peak > 4096 && len(t.byID) < t.peak/4 {
		t.remakeLocked()
	}
}

// remakeLocked makes the maps anew: Go's never give memory back.
func (t *table) remakeLocked() {
	byID := make(map[uint64]*inode, len(t.byID))
	maps.Copy(byID, t.byID)
	byIno := make(map[uint64]*inode, len(t.byIno))
	maps.Copy(byIno, t.byIno)
	armed := make(map[*inode]struct{}, len(t.armed))
	maps.Copy(armed, t.armed)
	t.byID, t.byIno, t.armed, t.peak = byID, byIno, armed, len(byID)
}

// clear forgets every node, the root last.
func (t *table) clear() {
	t.mu.Lock()
	all := make([]*inode, 0, len(t.byID))
	root := t.byID[fuse.FUSE_ROOT_ID]
	for _, in := range t.byID {
		if in != root {
			all = append(all, in)
		}
	}
	if root != nil {
		all = append(all, root)
	}
	clear(t.byID)
	clear(t.byIno)
	clear(t.armed)
	t.mu.Unlock()
	for _, in := range all {
		forgetNode(in.node)
	}
}

// arm notes that the kernel will believe in's attributes until the store
// changes. It reports false when in is already forgotten.
func (t *table) arm(in *inode) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID[in.id] != in {
		return false
	}
	t.armLocked(in)
	return true
}

func (t *table) armLocked(in *inode) {
	if !in.armed {
		in.armed = true
		t.armed[in] = struct{}{}
	}
}

// setValid remembers how long a look-up said that attributes hold.
func (t *table) setValid(in *inode, v vnode.Validity) {
	t.mu.Lock()
	defer t.mu.Unlock()
	in.valid = v
}

func (t *table) validOf(in *inode) vnode.Validity {
	t.mu.Lock()
	defer t.mu.Unlock()
	return in.valid
}

// disarm empties the set of armed inodes and returns their node IDs: those of
// directories whose list the kernel may have copied, and the others.
func (t *table) disarm() (copies, others []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	others = make([]uint64, 0, len(t.armed))
	for in := range t.armed {
		in.armed = false
		if c := in.copied; c != nil && c.allowed {
			c.allowed = false
			copies = append(copies, in.id)
			continue
		}
		others = append(others, in.id)
	}
	clear(t.armed)
	return copies, others
}

func (t *table) addOpen(in *inode, h *handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	in.open = append(in.open, h)
}

func (t *table) dropOpen(in *inode, h *handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, o := range in.open {
		if o == h {
			in.open = append(in.open[:i:i], in.open[i+1:]...)
			return
		}
	}
}

// opened returns the handles of in that are open now.
func (t *table) opened(in *inode) []*handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]*handle(nil), in.open...)
}

func (t *table) parentOf(in *inode) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return in.parent
}

func (t *table) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID)
}

// sameNode compares two nodes without a panic on types that == refuses.
func sameNode(a, b vnode.Node) bool {
	ta, tb := reflect.TypeOf(a), reflect.TypeOf(b)
	return ta == tb && ta.Comparable() && a == b
}

func forgetNode(n vnode.Node) {
	if f, ok := n.(vnode.Forgetter); ok {
		f.Forget()
	}
}
