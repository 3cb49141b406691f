package fusefs

import (
	"sync"
	"sync/atomic"

	"github.com/plyfs/plyfs/internal/vnode"
)

// handle is an open file (h) or directory (dir); the other is nil.
type handle struct {
	in    *inode
	h     vnode.Handle
	dir   *dirHandle
	wrote atomic.Bool // something was written or truncated through it
}

// dirHandle is the snapshot that one directory stream is read from. It is
// taken anew when the stream is read from its beginning.
type dirHandle struct {
	mu      sync.Mutex
	entries []vnode.Dirent // guarded by mu
	loaded  bool           // guarded by mu
	plain   bool           // a child was not ValidForever: no attributes in the list; guarded by mu

	// began is one more than the epoch under which entries were read, 0 before
	// that; guarded by table.mu.
	began uint64
	// opened is one more than the epoch at which its opendir had the kernel's
	// copy dropped, 0 if it had not; spoilt the inode's count then. Both are
	// guarded by table.mu.
	opened, spoilt uint64
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
