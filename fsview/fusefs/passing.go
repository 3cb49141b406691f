package fusefs

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/plyfs/plyfs/internal/vnode"
)

// passage is how an open file is read.
type passage uint8

const (
	unbacked passage = iota // it is no vnode.Backed, of which nothing is counted
	asking                  // by READ
	passed                  // by the kernel itself
)

// backer is what the kernel is given backing files by.
type backer interface {
	RegisterBackingFd(m *fuse.BackingMap) (int32, syscall.Errno)
	UnregisterBackingFd(id int32) syscall.Errno
}

// passing is what the server knows of open files that are vnode.Backed. The kernel's
// rules (Documentation/filesystems/fuse-passthrough.rst): an inode has one backing
// file at a time, and while it has one nobody has the inode open otherwise, and the
// other way round; a mixture fails the open with EIO.
type passing struct {
	mu     sync.Mutex
	kernel backer              // nil: there is no passthrough
	off    bool                // guarded by mu: nothing more is passed
	open   map[*inode]*backing // guarded by mu
}

// backing counts an inode's open files, which are all passed or all asking.
type backing struct {
	how passage
	n   int
	id  int32 // the kernel's number for the backing file, if passed
}

// begin is called before the first request.
func (p *passing) begin(srv transport) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = map[*inode]*backing{}
	// A user namespace's root has not the right (fuse_backing_open).
	if os.Geteuid() == 0 && srv.KernelSettings().Flags64()&fuse.CAP_PASSTHROUGH != 0 {
		p.kernel = srv
	}
}

// acquire counts h, one more open file of in, and returns how it is to be read. It
// never fails: what cannot be passed is asked for.
func (s *Server) acquire(in *inode, h vnode.Handle) (passage, int32) {
	b, ok := h.(vnode.Backed)
	if !ok || in == nil {
		return unbacked, 0
	}
	p := &s.passing
	if how, id := p.again(in); how != unbacked {
		return how, id
	}
	f, err := b.Backing()
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			p.giveUp()
		}
		s.log.WithField("op", "open").Debugf("the kernel is not to read it by itself: %v", err)
		return p.first(in, nil)
	}
	how, id := p.first(in, f)
	if f != nil {
		if err := f.Close(); err != nil {
			s.log.WithField("op", "open").Debug(err.Error())
		}
	}
	return how, id
}

// again counts one more, if in is open or nothing can be passed.
func (p *passing) again(in *inode) (passage, int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.open[in]; b != nil {
		b.n++
		return b.how, b.id
	}
	if p.kernel == nil || p.off {
		p.open[in] = &backing{how: asking, n: 1}
		return asking, 0
	}
	return unbacked, 0
}

// first counts one with the backing file f (nil: none), which the kernel takes a
// reference of, unless in is open by now.
func (p *passing) first(in *inode, f *os.File) (passage, int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.open[in]
	if b == nil {
		b = &backing{how: asking}
		p.open[in] = b
		if f != nil && p.kernel != nil && !p.off {
			p.registerLocked(b, f)
		}
	}
	b.n++
	return b.how, b.id
}

func (p *passing) registerLocked(b *backing, f *os.File) {
	id, no := p.kernel.RegisterBackingFd(&fuse.BackingMap{Fd: int32(f.Fd())})
	switch no {
	case 0:
		b.how, b.id = passed, id
	case syscall.EPERM, syscall.ENOTTY:
		p.off = true // it takes none of us
	}
}

// giveUp passes nothing from now on. What is passed stays.
func (p *passing) giveUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.off = true
}

// release takes back one open file.
func (p *passing) release(in *inode, how passage) {
	if how == unbacked {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.open[in]
	if b.n--; b.n > 0 {
		return
	}
	delete(p.open, in)
	if b.how == passed {
		_ = p.kernel.UnregisterBackingFd(b.id) // it fails where the connection is gone, and the number with it
	}
}

// count returns how many files the kernel reads by itself.
func (p *passing) count() (k int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.open {
		if b.how == passed {
			k++
		}
	}
	return k
}
