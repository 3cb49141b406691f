package fuseoverlay

import (
	"runtime"
	"sync"
	"sync/atomic"
	"weak"
)

// position is where a file of the tree is. It is never changed, only replaced.
type position struct {
	// spot is where its attributes are, data where its content is when that is
	// elsewhere. Of a directory, spot is its topmost place's.
	spot spot
	data *spot
	// stack is what a directory is the union of: top first, not empty.
	stack []*place
}

// where holds a file's position for all nodes of that file.
type where struct{ atomic.Pointer[position] }

func newWhere(pos *position) *where {
	w := &where{}
	w.Store(pos)
	return w
}

// moved knows the positions of the files of volatile layers that have nodes.
// Its lock is a leaf.
type moved struct {
	mu    sync.Mutex
	files map[fileKey]weak.Pointer[where] // guarded by mu
}

// fileKey tells files apart: a number may be used again, for another type.
type fileKey struct {
	ino  uint64
	kind kind
}

// place returns the where of the file, which is at pos now: the one that other
// nodes of it have, if there are any.
func (m *moved) place(key fileKey, pos *position) *where {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.files[key].Value(); w != nil {
		w.Store(pos)
		return w
	}
	if m.files == nil {
		m.files = map[fileKey]weak.Pointer[where]{}
	}
	w := newWhere(pos)
	m.files[key] = weak.Make(w)
	runtime.AddCleanup(w, m.forget, key)
	return w
}

// forget drops what no node holds any more.
func (m *moved) forget(key fileKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.files[key].Value() == nil {
		delete(m.files, key)
	}
}
