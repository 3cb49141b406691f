package fusefs

import (
	"sync"
	"sync/atomic"

	"github.com/plyfs/plyfs/internal/vnode"
)

// handle is an open file. Directories have none.
type handle struct {
	in    *inode
	h     vnode.Handle
	wrote atomic.Bool // something was written or truncated through it
	pass  passage     // set before anyone else knows of it
}

// handles maps the numbers that the kernel holds to handles.
type handles struct {
	mu   sync.Mutex
	next uint64             // guarded by mu
	m    map[uint64]*handle // guarded by mu
}

func (t *handles) add(h *handle) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	t.m[t.next] = h
	return t.next
}

// get returns a handle, or nil.
func (t *handles) get(fh uint64) *handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.m[fh]
}

// take removes a handle and returns it, or nil.
func (t *handles) take(fh uint64) *handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.m[fh]
	delete(t.m, fh)
	return h
}

// drain removes and returns all handles.
func (t *handles) drain() []*handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*handle, 0, len(t.m))
	for _, h := range t.m {
		all = append(all, h)
	}
	clear(t.m)
	return all
}

func (t *handles) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.m)
}
