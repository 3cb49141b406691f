package fuseoverlay

import (
	"container/list"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// backing is an open file of a layer, for reading and, of the upper, writing.
type backing struct {
	fd    int
	write bool
	upper bool
	// data: of a metadata-only copy, the file that has the data.
	data bool
	refs int           // guarded by fds.mu
	elem *list.Element // guarded by fds.mu; nil: closed with the last reference
	node *node
}

// fds keeps the files open that were used last, since the kernel does not say
// when it opens and closes them.
type fds struct {
	max int

	mu  sync.Mutex
	lru list.List // of *backing, the last used first; guarded by mu
	// lost has the errors of close of files that were written to, until their
	// fsync tells of them or they are forgotten; guarded by mu.
	lost map[*node]error
}

// take returns n's descriptor with a reference if it is open as wanted.
func (c *fds) take(n *node, write bool) *backing {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := n.fd
	if b == nil || write && !b.write || !b.fits(n) {
		return nil
	}
	b.refs++
	c.lru.MoveToFront(b.elem)
	return b
}

// fits tells whether b is still where n's content is: a copy-up may have ended
// since it was opened, or a metadata-only copy have got its data.
func (b *backing) fits(n *node) bool {
	return b.upper == n.is(flagUp) && (!b.data || n.is(flagDataBelow))
}

// peek is take for looking at the file's attributes.
func (c *fds) peek(n *node) *backing {
	b := c.take(n, false)
	if b != nil && b.data {
		c.leave(b)
		return nil
	}
	return b
}

// put makes b, just opened and with one reference, n's descriptor, unless it is
// outdated already: then it is closed with the reference.
func (c *fds) put(n *node, b *backing) {
	c.mu.Lock()
	b.node = n
	if !b.fits(n) && b.refs > 0 {
		c.mu.Unlock()
		return
	}
	closing := c.removeLocked(n.fd)
	n.fd = b
	b.elem = c.lru.PushFront(b)
	for e := c.lru.Back(); e != nil && c.lru.Len() > c.max; {
		old, prev := e.Value.(*backing), e.Prev()
		if old.refs == 0 {
			closing = append(closing, c.removeLocked(old)...)
		}
		e = prev
	}
	c.mu.Unlock()
	c.close(closing)
}

func (c *fds) removeLocked(b *backing) []*backing {
	if b == nil || b.elem == nil {
		return nil
	}
	c.lru.Remove(b.elem)
	b.elem, b.node.fd = nil, nil
	if b.refs > 0 {
		return nil
	}
	return []*backing{b}
}

// leave gives back a reference.
func (c *fds) leave(b *backing) {
	c.mu.Lock()
	b.refs--
	dead := b.refs == 0 && b.elem == nil
	c.mu.Unlock()
	if dead {
		c.close([]*backing{b})
	}
}

// drop lets go of n's descriptor.
func (c *fds) drop(n *node) {
	if n.isDir() {
		return
	}
	c.mu.Lock()
	closing := c.removeLocked(n.fd)
	c.mu.Unlock()
	c.close(closing)
}

// closeAll lets go of all of them.
func (c *fds) closeAll() {
	c.mu.Lock()
	var closing []*backing
	for e := c.lru.Front(); e != nil; e = c.lru.Front() {
		closing = append(closing, c.removeLocked(e.Value.(*backing))...)
	}
	c.mu.Unlock()
	c.close(closing)
}

// close closes files. On some filesystems (NFS, FUSE, quotas) an error of close
// is the first that is heard of data that did not get there: it is kept for the
// file's fsync.
func (c *fds) close(files []*backing) {
	for _, b := range files {
		if err := unix.Close(b.fd); err != nil && b.write && !errors.Is(err, unix.EINTR) {
			c.mu.Lock()
			if c.lost == nil {
				c.lost = map[*node]error{}
			}
			c.lost[b.node] = fmt.Errorf("what was written may be lost, the upper's filesystem says at close: %w", err)
			c.mu.Unlock()
		}
	}
}

// takeLost returns the error that is kept for n, once.
func (c *fds) takeLost(n *node) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.lost[n]
	delete(c.lost, n)
	return err
}

// closeFDs closes descriptors through which nothing was written.
func closeFDs(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// open returns a descriptor of the regular file n with a reference, for
// writing too when asked: then n must be upper.
func (o *Overlay) open(n *node, write bool) (*backing, error) {
	if n.typ != unix.S_IFREG {
		return nil, fmt.Errorf("open a file of type %o: %w", n.typ, syscall.EINVAL)
	}
	if b := o.fds.take(n, write); b != nil {
		return b, nil
	}
	upper := n.is(flagUp)
	data := false
	var fd int
	var err error
	if upper {
		data = n.lacksData()
		fd, write, err = o.openUpper(n, write)
	} else if write {
		return nil, syscall.EROFS // callers copy up first
	} else {
		fd, err = openLower(n.lowerData())
	}
	if err != nil {
		return nil, err
	}
	b := &backing{fd: fd, write: write, upper: upper, data: data, refs: 1}
	o.fds.put(n, b)
	return b, nil
}

// openUpper opens the file for reading and writing, or where that may not be
// and is not asked for, for reading.
func (o *Overlay) openUpper(n *node, write bool) (fd int, writable bool, err error) {
	n.copyMu.Lock()
	data := n.data()
	n.copyMu.Unlock()
	if data != nil {
		if write {
			return -1, false, syscall.EROFS // callers complete it first
		}
		fd, err = openLower(*data)
		return fd, false, err
	}
	err = o.withUpper(n, func(a access) error {
		fd, err = openAccess(a, unix.O_RDWR)
		writable = err == nil
		if errors.Is(err, syscall.EACCES) && !write {
			fd, err = openAccess(a, unix.O_RDONLY)
		}
		if errors.Is(err, syscall.EACCES) {
			fd, err = openForced(a)
			writable = err == nil
		}
		return err
	})
	return fd, writable, err
}

// openForced opens a file of our own whose mode forbids it: the kernel has
// checked the caller against that mode when it opened the file.
func openForced(a access) (int, error) {
	st, err := a.stat()
	if err != nil {
		return -1, err
	}
	if err := a.chmod(st.Mode&0o7777 | 0o600); err != nil {
		return -1, err
	}
	fd, err := openAccess(a, unix.O_RDWR)
	return fd, errors.Join(err, a.chmod(st.Mode&0o7777))
}

const openAlways = unix.O_NONBLOCK | unix.O_NOFOLLOW

func openAccess(a access, flags int) (int, error) {
	if a.ref != nil {
		return a.ref.OpenFD(flags | unix.O_NONBLOCK)
	}
	return a.dir.OpenFD(a.name, flags|openAlways, 0)
}

// openLower opens what no one changes; reading it leaves its access time.
func openLower(s spot) (fd int, err error) {
	err = s.place.with(func(d *safefs.Dir) error {
		fd, err = d.OpenFD(s.name, unix.O_RDONLY|unix.O_NOATIME|openAlways, 0)
		if errors.Is(err, syscall.EPERM) { // O_NOATIME is the owner's
			fd, err = d.OpenFD(s.name, unix.O_RDONLY|openAlways, 0)
		}
		return err
	})
	return fd, err
}
