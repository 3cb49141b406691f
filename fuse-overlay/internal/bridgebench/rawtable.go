package bridgebench

import (
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// rawNode stands for the node of a real tree, an interface value in the table.
type rawNode interface{ number() index }

type leaf struct{ n index }

func (l *leaf) number() index { return l.n }

// slot is one inode that the kernel holds.
type slot struct {
	node    rawNode
	lookups uint64
}

// rawServer serves the tree on the raw interface. The node ID is the inode
// number, so that one map serves both FORGET and the question whether a
// looked-up file is known already.
type rawServer struct {
	fuse.RawFileSystem
	tree  tree
	valid valid
	asked atomic.Uint64 // LOOKUP requests

	mu    sync.RWMutex
	slots map[uint64]slot // guarded by mu
	peak  int             // guarded by mu: the most slots since the map was made
}

func newRaw(t tree, v valid) *rawServer {
	return &rawServer{
		RawFileSystem: fuse.NewDefaultRawFileSystem(), tree: t, valid: v,
		slots: map[uint64]slot{fuse.FUSE_ROOT_ID: {&leaf{0}, 1}},
	}
}

func (r *rawServer) get(id uint64) (index, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s, ok := r.slots[id]
	if !ok {
		return 0, false
	}
	return s.node.number(), true
}

func (r *rawServer) enter(n index, out *fuse.EntryOut) {
	id := n.ino()
	r.mu.Lock()
	s, ok := r.slots[id]
	if !ok {
		s.node = &leaf{n}
	}
	s.lookups++
	r.slots[id] = s
	r.peak = max(r.peak, len(r.slots))
	r.mu.Unlock()
	out.NodeId, out.Generation = id, 1
	r.tree.attr(n, &out.Attr)
	out.SetEntryTimeout(r.valid.entry)
	out.SetAttrTimeout(r.valid.attr)
}

// Lookup implements fuse.RawFileSystem.
func (r *rawServer) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	r.asked.Add(1)
	p, ok := r.get(h.NodeId)
	if !ok {
		return fuse.Status(116) // ESTALE
	}
	n, ok := r.tree.child(p, name)
	if !ok {
		return fuse.ENOENT
	}
	r.enter(n, out)
	return fuse.OK
}

// Forget implements fuse.RawFileSystem.
func (r *rawServer) Forget(id, n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.slots[id]
	if !ok || id == fuse.FUSE_ROOT_ID {
		return
	}
	if s.lookups -= min(n, s.lookups); s.lookups > 0 {
		r.slots[id] = s
		return
	}
	delete(r.slots, id)
	if r.peak > 4096 && len(r.slots) < r.peak/4 {
		r.shrinkLocked()
	}
}

// shrinkLocked makes the map anew: a Go map never gives buckets back. Done at
// a quarter of the peak, it costs a constant share of the FORGETs before it.
func (r *rawServer) shrinkLocked() {
	m := make(map[uint64]slot, len(r.slots))
	for id, s := range r.slots {
		m[id] = s
	}
	r.slots, r.peak = m, len(m)
}

// GetAttr implements fuse.RawFileSystem.
func (r *rawServer) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, _ := r.get(in.NodeId)
	r.tree.attr(n, &out.Attr)
	out.SetTimeout(r.valid.attr)
	return fuse.OK
}

// OpenDir implements fuse.RawFileSystem.
func (r *rawServer) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.OK }

// ReadDirPlus implements fuse.RawFileSystem.
func (r *rawServer) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	p, _ := r.get(in.NodeId)
	for k := uint32(in.Offset); ; k++ {
		n, name, ok := r.tree.entry(p, k)
		if !ok {
			return fuse.OK
		}
		e := out.AddDirLookupEntry(fuse.DirEntry{Name: name, Ino: n.ino(), Mode: r.tree.mode(n), Off: uint64(k + 1)})
		if e == nil {
			return fuse.OK
		}
		r.enter(n, e)
	}
}

// ReleaseDir implements fuse.RawFileSystem.
func (r *rawServer) ReleaseDir(*fuse.ReleaseIn) {}

// Open implements fuse.RawFileSystem.
func (r *rawServer) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

// Read implements fuse.RawFileSystem.
func (r *rawServer) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	return fuse.ReadResultData(readAt(buf, int64(in.Offset))), fuse.OK
}

// Release implements fuse.RawFileSystem.
func (r *rawServer) Release(<-chan struct{}, *fuse.ReleaseIn) {}

func mountRaw(dir string, r *rawServer) (*fuse.Server, error) {
	s, err := fuse.NewServer(r, dir, &fuse.MountOptions{FsName: "bridgebench", DirectMount: true})
	if err != nil {
		return nil, err
	}
	go s.Serve()
	return s, s.WaitMount()
}
