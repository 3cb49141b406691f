package fuseoverlay

import (
	"context"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// giving has the contents of small lower files given to the kernel while their first
// OPEN is at work (FUSE_NOTIFY_STORE): no READ comes, and what a READ makes the kernel
// forget, the access time, is not asked for again. doc.go says why nothing that a
// program has written is lost by it. Only in passthrough mode: in the others nobody
// tells of an OPEN.
type giving struct {
	files   atomic.Uint64 // that were given
	refused atomic.Bool   // the kernel has no such notice
	// buffers are for as many files as are given at once; nil ones are still to be made.
	buffers chan []byte
}

const (
	// giveMost is the size in bytes of the largest file that is given whole.
	giveMost = 64 << 10
	// giveAtOnce is how many files are given at once: what waits for a slow layer is
	// bounded, and so is the memory. Further ones are read as ever.
	giveAtOnce = 4
)

func newGiving() *giving {
	g := &giving{buffers: make(chan []byte, giveAtOnce)}
	for range giveAtOnce {
		g.buffers <- nil
	}
	return g
}

// beginsLocked tells whether who opens n with flags, as the only one, is to give its
// contents: it is the first ever, and nobody can have changed them. p.mu is held, and
// n is about to be open.
func (p *passing) beginsLocked(n *node, flags uint32) bool {
	reads := flags&(unix.O_ACCMODE|unix.O_TRUNC) == unix.O_RDONLY
	return n.set(flagOpened) && reads && n.typ == unix.S_IFREG && !n.is(flagUp) && !p.giving.refused.Load()
}

// ends lets those go on who wait for what beginsLocked began.
func (p *passing) ends(n *node, given chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.open[n]; e != nil {
		e.giving = nil
	}
	close(given)
}

// changes comes before the contents of n are changed, or opened for that: none are
// given any more, and none are being given. EINTR when the caller is killed meanwhile.
func (p *passing) changes(ctx context.Context, n *node) error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	n.set(flagOpened)
	var given chan struct{}
	if e := p.open[n]; e != nil {
		given = e.giving
	}
	p.mu.Unlock()
	if given == nil {
		return nil
	}
	return await(ctx, given)
}

// give gives the contents of n, a lower file that one program is about to have open,
// for reading. What goes wrong is left to the READ that comes then.
func (o *Overlay) give(n *node) {
	g := o.pass.giving
	var buf []byte
	select {
	case buf = <-g.buffers:
	default:
		return
	}
	defer func() { g.buffers <- buf }()
	b, err := o.open(n, false) // once for all that follows
	if err != nil {
		return
	}
	defer o.fds.leave(b)
	st, err := o.stat(n)
	if err != nil || st.Size == 0 || st.Size > giveMost {
		return
	}
	if buf == nil {
		buf = make([]byte, giveMost+1)
	}
	k, err := o.read(n, buf[:st.Size+1], 0)
	if err != nil || uint64(k) != st.Size { // a longer one would grow, of a shorter one the kernel asks for the end
		return
	}
	switch s := o.pass.server.InodeNotifyStoreCache(n.id, 0, buf[:k]); s {
	case fuse.OK:
		g.files.Add(1)
	case fuse.EINVAL, fuse.ENOSYS:
		g.refused.Store(true)
		o.log.Debugf("the kernel takes no contents: %v", s)
	default: // no memory, or the file is forgotten
		o.log.Debugf("give contents: %v", s)
	}
}
