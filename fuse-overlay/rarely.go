package fuseoverlay

import (
	"sync"
	"sync/atomic"

	"github.com/plyfs/plyfs/internal/safefs"
)

// flags are what is true of a node. Each may be asked and changed at any time.
type flags struct{ bits atomic.Uint32 }

const (
	// flagUp: upper.
	flagUp uint32 = 1 << iota
	// flagBare: made by this mount, and no extended attribute was set since. The
	// kernel asks for the capability at each first write and chown.
	flagBare
	// flagNaked: no extended attribute at all, when it was looked up and since. ls
	// asks for those of SELinux and the ACL, of each file.
	flagNaked
	// flagPassed: opened for passthrough before.
	flagPassed
	// flagMapped: opened for passthrough, for reading and writing, so that a
	// mapping may change it without anybody's asking.
	flagMapped
	// flagUnlinked: a name of it was removed, or is about to be. The kernel counts the
	// links down itself once it has the answer, also from what it was told
	// meanwhile, which had been counted already: what it is told is not to be
	// believed for long.
	flagUnlinked
	// flagDataBelow: data is set. Changed with copyMu held.
	flagDataBelow
	// flagOpened: it was opened, or its contents were changed without that; see given.go.
	flagOpened
)

// is tells whether one of the flags is set.
func (f *flags) is(which uint32) bool { return f.bits.Load()&which != 0 }

// set sets a flag, and tells whether it was not.
func (f *flags) set(which uint32) bool { return f.bits.Or(which)&which == 0 }

// setIf sets a flag of a node that nobody knows yet.
func (f *flags) setIf(is bool, which uint32) {
	if is {
		f.set(which)
	}
}

// clear takes flags back, and tells whether one was set.
func (f *flags) clear(which uint32) bool { return f.bits.And(^which)&which != 0 }

// seldom is what few nodes have.
type seldom struct {
	// keys are what a hard-linked node is known by in table.byKey: its upper
	// file, and the lower one of which it is the copy.
	keys []fileID // guarded by treeMu
	more []link   // guarded by treeMu: further names that are known

	copying chan struct{} // guarded by copyMu: closed when a copy-up in progress ends
	data    *spot         // guarded by copyMu: where the data of an upper metadata-only copy is
	links   linkRecord    // guarded by copyMu

	recording sync.Mutex // one at a time writes links down

	// split, once not 0, is st_ino: the copy of one name of a lower file of several
	// is another file than that.
	split atomic.Uint64
	// aside is the owner and mode that an attribute keeps; see aside.go. Nil: the
	// file's own.
	aside atomic.Pointer[override]
	// orphan holds the file when no name does.
	orphan atomic.Pointer[safefs.Ref]
	// kept is the name in work that holds the file when no other does; see
	// orphan.go.
	kept atomic.Pointer[string]
}

// rare returns what few nodes have, for changing it: from now on n is one of them.
func (n *node) rare() *seldom {
	if s := n.seldom.Load(); s != nil {
		return s
	}
	n.seldom.CompareAndSwap(nil, &seldom{})
	return n.seldom.Load()
}

// number is st_ino.
func (n *node) number() uint64 {
	if s := n.seldom.Load(); s != nil {
		if v := s.split.Load(); v != 0 {
			return v
		}
	}
	return n.ino
}

func (n *node) keys() []fileID {
	if s := n.seldom.Load(); s != nil {
		return s.keys
	}
	return nil
}

func (n *node) addKey(k fileID) { s := n.rare(); s.keys = append(s.keys, k) }

func (n *node) more() []link {
	if s := n.seldom.Load(); s != nil {
		return s.more
	}
	return nil
}

func (n *node) setMore(l []link) {
	if l != nil || n.more() != nil {
		n.rare().more = l
	}
}

func (n *node) copying() chan struct{} {
	if s := n.seldom.Load(); s != nil {
		return s.copying
	}
	return nil
}

func (n *node) data() *spot {
	if s := n.seldom.Load(); s != nil {
		return s.data
	}
	return nil
}

func (n *node) setData(d *spot) {
	if d != nil {
		n.set(flagDataBelow)
	} else {
		n.clear(flagDataBelow)
	}
	if d != nil || n.data() != nil {
		n.rare().data = d
	}
}

func (n *node) aside() *override {
	if s := n.seldom.Load(); s != nil {
		return s.aside.Load()
	}
	return nil
}

func (n *node) setAside(v *override) {
	if v != nil || n.aside() != nil {
		n.rare().aside.Store(v)
	}
}

// firstAside is setAside unless there is one, and returns the one that is there.
func (n *node) firstAside(v *override) *override {
	s := n.rare()
	s.aside.CompareAndSwap(nil, v)
	return s.aside.Load()
}

func (n *node) orphan() *safefs.Ref {
	if s := n.seldom.Load(); s != nil {
		return s.orphan.Load()
	}
	return nil
}

// swapOrphan sets what holds the file, and returns what did.
func (n *node) swapOrphan(r *safefs.Ref) *safefs.Ref {
	if r == nil && n.orphan() == nil {
		return nil
	}
	return n.rare().orphan.Swap(r)
}

// keptName is the name in work that holds n, "" for none.
func (n *node) keptName() string {
	if s := n.seldom.Load(); s != nil {
		if name := s.kept.Load(); name != nil {
			return *name
		}
	}
	return ""
}

// indexName is the file's name in work/index, "" when it has none.
func (n *node) indexName() string {
	if s := n.seldom.Load(); s != nil {
		if name := s.links.index.Load(); name != nil {
			return *name
		}
	}
	return ""
}

// shownLinks is the link count that the tree shows when the file's is k. copyMu
// is held.
func (n *node) shownLinks(k uint32) uint32 {
	if s := n.seldom.Load(); s != nil {
		return s.links.shown(k)
	}
	return k
}
