package fuseoverlay

import "golang.org/x/sys/unix"

// BriefRmdir implements fusewire.Foresight: the names are known, so nothing is
// listed, and what may have to be emptied is left to others.
func (r *raw) BriefRmdir(dir uint64, name string) bool {
	n := r.o.ifKnown(dir, name)
	if n == nil || !n.isDir() {
		return false
	}
	r.o.treeMu.Lock()
	listed := n.dir.idx.complete
	r.o.treeMu.Unlock()
	return listed && (n.pure() || r.o.pass == nil && r.o.trash.takes())
}

// BriefRename implements fusewire.Foresight: a directory may be copied up with all
// that is below it, a file takes no more than another change of it.
func (r *raw) BriefRename(dir uint64, name string, flags uint32) bool {
	n := r.o.ifKnown(dir, name)
	return n != nil && !n.isDir() && flags&unix.RENAME_EXCHANGE == 0
}

// ifKnown returns the node of a name, nil where that needs a look-up. The node is
// not held: it may be in the table no more.
func (o *Overlay) ifKnown(dir uint64, name string) *node {
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	d := o.table.nodes.get(dir)
	if d == nil || !d.isDir() {
		return nil
	}
	if e := d.dir.idx.get(name); e != nil {
		return e.node
	}
	return nil
}
