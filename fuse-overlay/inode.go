package fuseoverlay

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// node is one inode of the writable overlay; see doc.go for its states. There
// are as many as the kernel caches inodes: what few have is apart (rarely.go),
// and a field more makes each 16 bytes larger.
type node struct {
	id  uint64 // the kernel's number for it, never used again
	ino uint64 // st_ino, see number
	typ uint32 // type bits
	flags

	// lower is where a file that is not upper has its content and attributes.
	// It never changes; the place is nil when nothing of the node is below.
	lower spot

	copyMu sync.Mutex
	seldom atomic.Pointer[seldom] // see rare

	lookups uint64 // guarded by treeMu: what the kernel holds, and requests in progress
	home    link   // guarded by treeMu

	dir *dirState // of directories
	fd  *backing  // guarded by fds.mu
}

// link is a name of a node.
type link struct {
	dir  *node
	name string
}

// fileID is a file of some layer.
type fileID struct{ dev, ino uint64 }

// dirState is what only directories have.
type dirState struct {
	mu sync.RWMutex
	// stack is what the directory is the union of: its upper place first, if
	// it has one. Replaced as a whole, with mu held for writing.
	stack atomic.Pointer[[]*place]
	// impure: a child's inode number is not its own. Only ever set.
	impure atomic.Bool
	quiet  atomic.Pointer[quietChange]
	// wanted: a name was looked up since the last listing began.
	wanted atomic.Bool
	// dead: removed.
	dead bool       // guarded by mu
	acl  aclState   // guarded by mu
	idx  childIndex // guarded by treeMu
}

// aclState says whether a directory has a default ACL.
type aclState uint8

const (
	aclUnknown aclState = iota
	aclNone
	aclSome
)

func (n *node) isDir() bool { return n.dir != nil }

func (n *node) stack() []*place { return *n.dir.stack.Load() }

func (n *node) setStack(s []*place) { n.dir.stack.Store(&s) }

// writable tells whether p is in the upper.
func (p *place) writable() bool { return p.tree.writable && p.layer.index == 0 }

// upper returns the directory's upper place, nil when it has none.
func (n *node) upper() *place {
	if s := n.stack(); s[0].writable() {
		return s[0]
	}
	return nil
}

// below returns the lower part of the directory's stack.
func (n *node) below() []*place {
	s := n.stack()
	if s[0].writable() {
		return s[1:]
	}
	return s
}

// searched returns the places that have names of the directory: all, but for an
// upper one in which there is nothing. Its lock is held.
func (n *node) searched() []*place {
	s := n.stack()
	if len(s) > 1 && s[0].untouched.Load() {
		return s[1:]
	}
	return s
}

// pure tells whether only the upper has entries of the directory, and none of
// them carries a mark.
func (n *node) pure() bool {
	s := n.stack()
	return len(s) == 1 && s[0].writable() && !n.dir.impure.Load()
}

// access is a way to a file: a name in a directory ("." for itself), or the
// file.
type access struct {
	dir  *safefs.Dir
	name string
	ref  *safefs.Ref
}

func (a access) stat() (safefs.Stat, error) {
	if a.ref != nil {
		return a.ref.Stat()
	}
	return a.dir.Stat(a.name)
}

func (a access) chown(uid, gid int) error {
	if a.ref != nil {
		return a.ref.Chown(uid, gid)
	}
	return a.dir.Chown(a.name, uid, gid)
}

func (a access) chmod(mode uint32) error {
	if a.ref != nil {
		return a.ref.Chmod(mode)
	}
	return a.dir.Chmod(a.name, mode)
}

func (a access) utimens(atime, mtime time.Time) error {
	if a.ref != nil {
		return a.ref.Utimens(atime, mtime)
	}
	return a.dir.Utimens(a.name, atime, mtime)
}

func (a access) getxattr(attr string) ([]byte, error) {
	if a.ref != nil {
		return a.ref.Getxattr(attr)
	}
	return a.dir.Getxattr(a.name, attr)
}

func (a access) listxattr() ([]string, error) {
	if a.ref != nil {
		return a.ref.Listxattr()
	}
	return a.dir.Listxattr(a.name)
}

func (a access) setxattr(attr string, value []byte, flags int) error {
	if a.ref != nil {
		return a.ref.Setxattr(attr, value, flags)
	}
	return a.dir.Setxattr(a.name, attr, value, flags)
}

func (a access) removexattr(attr string) error {
	if a.ref != nil {
		return a.ref.Removexattr(attr)
	}
	return a.dir.Removexattr(a.name, attr)
}

func (a access) readlink() (string, error) {
	if a.ref != nil {
		return a.ref.Readlink()
	}
	return a.dir.Readlink(a.name)
}

// with calls f with a way to n's file as it is now. No lock may be held but
// locks that come before renameMu.
func (o *Overlay) with(n *node, f func(a access) error) error {
	if n.isDir() {
		return o.withDir(n, f)
	}
	if n.is(flagUp) {
		return o.withUpper(n, f)
	}
	return n.lower.with(f)
}

// reach is with, by the file's descriptor where it is open.
func (o *Overlay) reach(n *node, f func(a access) error) error {
	b := o.fds.peek(n)
	if b == nil {
		return o.with(n, f)
	}
	defer o.fds.leave(b)
	return f(access{ref: safefs.OpenedRef(b.fd)})
}

func (s spot) with(f func(a access) error) error {
	return s.place.with(func(d *safefs.Dir) error { return f(access{dir: d, name: s.name}) })
}

func (o *Overlay) withDir(n *node, f func(a access) error) error {
	if r := n.orphan(); r != nil {
		return f(access{ref: r})
	}
	asName := func(d *safefs.Dir) error {
		if o.tree.loans != nil { // who may not search it finds no "." in it
			return f(access{ref: d.Self()})
		}
		return f(access{dir: d, name: "."})
	}
	err := n.stack()[0].with(asName)
	if !errors.Is(err, syscall.ESTALE) {
		return err
	}
	if r := n.orphanAfter(); r != nil { // it was being removed
		return f(access{ref: r})
	}
	return n.stack()[0].with(asName)
}

// orphanAfter is orphan after a change of the directory n that is in progress.
func (n *node) orphanAfter() *safefs.Ref {
	n.dir.mu.RLock()
	defer n.dir.mu.RUnlock()
	return n.orphan()
}

// withUpper is with for an upper file that is no directory.
func (o *Overlay) withUpper(n *node, f func(a access) error) error {
	o.renameMu.RLock()
	defer o.renameMu.RUnlock()
	for {
		if done, err := o.tryUpper(n, f); done {
			return err
		}
	}
}

// tryUpper is withUpper unless n's home changes meanwhile; renameMu is held.
func (o *Overlay) tryUpper(n *node, f func(a access) error) (done bool, err error) {
	l := o.homeOf(n)
	if l.dir != nil && n.indexName() == "" {
		l.dir.dir.mu.RLock()
		defer l.dir.dir.mu.RUnlock()
	}
	if l != o.homeOf(n) {
		return false, nil
	}
	return true, o.withUpperLocked(n, l, f)
}

// withUpperLocked is withUpper when renameMu and the directory of l, n's home,
// are held.
func (o *Overlay) withUpperLocked(n *node, l link, f func(a access) error) error {
	if r := n.orphan(); r != nil {
		return f(access{ref: r})
	}
	if to := n.keptName(); to != "" {
		return f(access{dir: o.work.stage, name: to})
	}
	if idx := n.indexName(); idx != "" {
		return f(access{dir: o.work.index, name: idx})
	}
	if l.dir == nil || l.dir.upper() == nil {
		return fmt.Errorf("file %d has no name any more: %w", n.number(), syscall.ESTALE)
	}
	return l.dir.upper().with(func(d *safefs.Dir) error { return f(access{dir: d, name: l.name}) })
}

func (o *Overlay) homeOf(n *node) link {
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	return n.home
}

// stat returns n's attributes as the tree shows them.
func (o *Overlay) stat(n *node) (st safefs.Stat, err error) {
	st, err = o.tree.loans.seen(func() (st safefs.Stat, err error) {
		if b := o.fds.peek(n); b != nil {
			st, err = safefs.StatFD(b.fd)
			o.fds.leave(b)
			return st, err
		}
		err = o.with(n, func(a access) (err error) {
			st, err = a.stat()
			return err
		})
		return st, err
	})
	if err != nil {
		return st, err
	}
	return st, o.shown(n, &st)
}

// shown turns the attributes of the file that n is into n's.
func (o *Overlay) shown(n *node, st *safefs.Stat) error {
	o.unmap(st)
	if v := n.aside(); v != nil {
		v.show(st)
	}
	if n.isDir() {
		switch {
		case n.orphan() != nil:
			st.Nlink = 0
		case len(n.stack()) > 1:
			st.Nlink = 1
		}
		n.dir.show(st)
		st.Ino = n.ino
		return nil
	}
	st.Ino, st.Nlink = n.number(), n.realLinks(st.Nlink)
	if st.Nlink > 0 && !n.is(flagUp) && o.homeOf(n).dir == nil {
		st.Nlink-- // the layer still has the name that was removed
	}
	if n.typ != unix.S_IFREG && n.indexName() == "" {
		return nil
	}
	n.copyMu.Lock()
	data := n.data()
	st.Nlink = n.shownLinks(st.Nlink)
	n.copyMu.Unlock()
	if data == nil {
		return nil
	}
	return data.with(func(a access) error {
		d, err := a.stat()
		st.Blocks = d.Blocks
		return err
	})
}
