package fuseoverlay

import (
	"container/list"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
)

// DefaultDescriptors is the size of a tree's own cache: enough for a few
// directories that every one of MaxLayers has, since a look-up in one of them
// goes through them all, and one that does not fit is opened again each time.
const DefaultDescriptors = 2048

// place is a directory inside a layer. Nothing but open and what is atomic changes
// once the place is known to others; dev and ino of a layer's root are set when it
// is first opened, before anyone is given its descriptor.
type place struct {
	tree  *Tree
	layer *layer
	// up and name say where it is; up is nil for a layer's root.
	up       *place
	name     string
	dev, ino uint64
	// xwhiteouts: files with a whiteout attribute may be inside.
	xwhiteouts bool
	// empty: another filesystem is mounted on it; see bare.go.
	empty bool
	// listed: whoever reads ahead of a walk comes too late.
	listed atomic.Bool
	// untouched: of the upper, made by a copy-up of this mount, and nothing was put
	// in it since. Set before the place is known; taken back before something is
	// put there, with the directory's lock held for writing.
	untouched atomic.Bool
	// moved, once set, is where an upper directory is now, instead of up and
	// name. It is set with renameMu held for writing.
	moved atomic.Pointer[spot]

	open *held // guarded by Cache.mu

	absences absences
}

// pinned tells whether p stays open from its first opening on.
func (p *place) pinned() bool { return p.up == nil && p.tree.pinned }

// loc returns the place above p and p's name there.
func (p *place) loc() (*place, string) {
	if m := p.moved.Load(); m != nil {
		return m.place, m.name
	}
	return p.up, p.name
}

// exact tells whether d_ino of a listing of p is what stat says. p was opened
// before.
func (p *place) exact() bool { return p.layer.exact && p.dev == p.layer.root.dev }

// spot is where one file of one layer lies.
type spot struct {
	place *place
	name  string
}

// spot returns p as seen from the place above it; of one that another filesystem
// is mounted on, what has its attributes.
func (p *place) spot() spot {
	up, name := p.loc()
	if up == nil {
		return spot{p, "."}
	}
	if p.empty {
		name = "."
	}
	return spot{up, name}
}

// held is the open descriptor of a place. Whoever holds a reference may use
// dir; the other fields are guarded by Cache.mu.
type held struct {
	dir   *safefs.Dir
	place *place
	refs  int
	elem  *list.Element // nil when not in the cache: closed with the last reference
}

// Cache holds open descriptors of places, the least recently used let go
// first. Those in use at a moment may exceed its size, and so do the roots of a
// mount's layers, which stay open: their paths may come to lead elsewhere, into
// the mount itself even. Trees may share one.
type Cache struct {
	size int

	mu  sync.Mutex
	lru *list.List // of *held, most recently used first; guarded by mu
}

// NewCache returns a cache of at most size descriptors (at least 8).
func NewCache(size int) *Cache { return &Cache{size: max(size, 8), lru: list.New()} }

// Len returns how many descriptors the cache holds now.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lru.Len()
}

// take returns p's descriptor with a reference, nil when it is not open.
func (c *Cache) take(p *place) *held {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := p.open
	if h == nil {
		return nil
	}
	c.useLocked(h)
	return h
}

// useLocked counts one more reference of h.
func (c *Cache) useLocked(h *held) {
	h.refs++
	if h.elem != nil {
		c.lru.MoveToFront(h.elem)
	}
}

// put makes dir, just opened, the descriptor of p and returns it with a
// reference; when another was faster, that one. ESTALE when p is known to be
// another directory.
func (c *Cache) put(p *place, dir *safefs.Dir, st *safefs.Stat) (*held, error) {
	c.mu.Lock()
	closing, h := c.putLocked(p, dir, st)
	c.mu.Unlock()
	err := closeAll(closing)
	if h == nil {
		return nil, errors.Join(fmt.Errorf("layer %s: %q is another directory now: %w", p.layer.Name, p.name, syscall.ESTALE), err)
	}
	return h, nil // descriptors that fail to close lose nothing: they are O_PATH
}

func (c *Cache) putLocked(p *place, dir *safefs.Dir, st *safefs.Stat) ([]*safefs.Dir, *held) {
	if p.dev == 0 && p.ino == 0 {
		p.dev, p.ino = st.Dev, st.Ino
	}
	if p.dev != st.Dev || p.ino != st.Ino || p.tree.closed.Load() {
		return []*safefs.Dir{dir}, nil
	}
	if h := p.open; h != nil {
		c.useLocked(h)
		return []*safefs.Dir{dir}, h
	}
	h := &held{dir: dir, place: p, refs: 1}
	if p.pinned() {
		h.refs++ // the tree's, until it is closed
		p.open = h
		return nil, h
	}
	h.elem = c.lru.PushFront(h)
	p.open = h
	return c.evictLocked(), h
}

// evictLocked removes what is over size and unused, and returns it for closing
// outside the lock.
func (c *Cache) evictLocked() (closing []*safefs.Dir) {
	for e := c.lru.Back(); e != nil && c.lru.Len() > c.size; {
		h, prev := e.Value.(*held), e.Prev()
		if h.refs == 0 {
			closing = append(closing, c.removeLocked(h)...)
		}
		e = prev
	}
	return closing
}

// removeLocked takes h out of the cache and returns its directory if nobody
// uses it.
func (c *Cache) removeLocked(h *held) []*safefs.Dir {
	if h.elem == nil {
		h.refs-- // a pinned one
	} else {
		c.lru.Remove(h.elem)
	}
	h.elem, h.place.open = nil, nil
	if h.refs > 0 {
		return nil
	}
	return []*safefs.Dir{h.dir}
}

// leave gives back a reference.
func (c *Cache) leave(h *held) {
	c.mu.Lock()
	h.refs--
	dead := h.refs == 0 && h.elem == nil
	c.mu.Unlock()
	if dead {
		_ = h.dir.Close() // O_PATH: nothing to lose
	}
}

// drop lets go of the descriptors of places.
func (c *Cache) drop(places []*place) {
	c.mu.Lock()
	var closing []*safefs.Dir
	for _, p := range places {
		if p.open != nil && !p.pinned() {
			closing = append(closing, c.removeLocked(p.open)...)
		}
	}
	c.mu.Unlock()
	_ = closeAll(closing) // O_PATH: nothing to lose
}

// dropTree lets go of a tree's descriptors.
func (c *Cache) dropTree(t *Tree) error {
	c.mu.Lock()
	var closing []*safefs.Dir
	for e := c.lru.Front(); e != nil; {
		h, next := e.Value.(*held), e.Next()
		if h.place.tree == t {
			closing = append(closing, c.removeLocked(h)...)
		}
		e = next
	}
	for _, l := range t.layers {
		if l.root.open != nil {
			closing = append(closing, c.removeLocked(l.root.open)...)
		}
	}
	c.mu.Unlock()
	return closeAll(closing)
}

func closeAll(dirs []*safefs.Dir) error {
	var err error
	for _, d := range dirs {
		err = errors.Join(err, d.Close())
	}
	return err
}

// enter returns p's descriptor with a reference, opening what is not open from
// the nearest open place above it down. It does not recurse: how deep a layer
// is, is its maker's to choose.
func (p *place) enter() (*held, error) {
	if h := p.tree.cache.take(p); h != nil {
		return h, nil
	}
	h, err := p.open1()
	for try := 0; try < 3 && p.tree.writable && errors.Is(err, syscall.ESTALE); try++ {
		h, err = p.open1() // it was renamed meanwhile
	}
	return h, err
}

func (p *place) open1() (*held, error) {
	c := p.tree.cache
	var above *held
	todo := []*place{p}
	for q, _ := p.loc(); q != nil; q, _ = q.loc() {
		if above = c.take(q); above != nil {
			break
		}
		todo = append(todo, q)
	}
	for i := len(todo) - 1; i >= 0; i-- {
		h, err := todo[i].openIn(above)
		if above != nil {
			c.leave(above)
		}
		if err != nil {
			return nil, err
		}
		above = h
	}
	return above, nil
}

// openIn opens p in the place above it, or by its layer's path.
func (p *place) openIn(above *held) (*held, error) {
	if p.tree.closed.Load() {
		return nil, fmt.Errorf("layer %s: the tree is closed: %w", p.layer.Name, syscall.ESTALE)
	}
	var dir *safefs.Dir
	var err error
	if above == nil {
		dir, err = p.openRoot()
	} else {
		_, name := p.loc()
		if p.empty {
			name = "." // what is mounted there would be in use
		}
		if dir, err = above.dir.OpenDir(name); gone(err) {
			err = fmt.Errorf("directory %q is gone: %w", name, syscall.ESTALE)
		}
	}
	if err != nil {
		return nil, p.layer.explain(err)
	}
	st, err := dir.Self().Stat() // which its mode may not let be searched
	if err != nil {
		return nil, errors.Join(p.layer.explain(err), dir.Close())
	}
	return p.tree.cache.put(p, dir, &st)
}

// openRoot opens the layer itself.
func (p *place) openRoot() (*safefs.Dir, error) {
	l := p.layer
	if l.opened != nil {
		dir, err := l.opened.Dup()
		if err == nil {
			err = p.learnRoot(dir, 0, true)
		}
		return dir, err
	}
	dir, err := safefs.OpenRoot(l.Dir)
	if gone(err) {
		return nil, errno.New(errno.ErrDamaged, "layer %s: its directory %s is missing: restore it, or delete the layer and pull the image again", l.Name, l.Dir)
	}
	if err != nil {
		return nil, err
	}
	st, err := dir.Stat(".")
	given := dir
	if err == nil && p.tree.pinned && !p.writable() {
		dir, err = bare(dir, p.tree.clones)
	}
	if err == nil {
		err = p.learnRoot(dir, st.Mnt, dir != given)
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// learnRoot sets the layer's rootFacts, once: later openings find readers at
// work. given is the mount that a lower layer's path led to; cloned tells whether
// dir is on a clone.
func (p *place) learnRoot(dir *safefs.Dir, given uint64, cloned bool) error {
	c := p.tree.cache
	c.mu.Lock()
	known := p.layer.known
	c.mu.Unlock()
	if known {
		return nil
	}
	facts, err := p.readRoot(dir)
	if err != nil {
		return err
	}
	st, err := dir.Stat(".")
	if err != nil {
		return err
	}
	facts.given, facts.mount, facts.cloned = given, st.Mnt, cloned
	c.mu.Lock()
	defer c.mu.Unlock()
	if !p.layer.known {
		p.layer.known, p.layer.rootFacts, p.xwhiteouts = true, facts, facts.xwhiteouts
	}
	return nil
}

// rootFacts are what the first opening of a layer finds out about it.
type rootFacts struct {
	// exact: d_ino is stat's.
	exact bool
	// opaque: the layer holds `.wh..wh..opq` and hides all layers below. An
	// opaque attribute on a layer's root means nothing, as in the kernel.
	opaque bool
	// xwhiteouts is the mark of that name.
	xwhiteouts bool
	// given is the mount that a lower layer's path led to; mount is the one that it
	// is read on, perhaps a clone of that.
	given, mount uint64
	// cloned: mount is a clone, on which nothing is covered.
	cloned bool
}

func (p *place) readRoot(dir *safefs.Dir) (rootFacts, error) {
	var f rootFacts
	exact, err := exactListing(dir)
	if err != nil || p.tree.last(p) {
		return rootFacts{exact: exact}, err
	}
	f.exact = exact
	if p.tree.formats&Files != 0 {
		_, err := dir.Stat(opaqueFile)
		if err != nil && !absent(err) {
			return f, err
		}
		f.opaque = err == nil
	}
	names, err := dir.Listxattr(".")
	if err != nil && !noXattrs(err) {
		return f, err
	}
	at := hit{spot: spot{p, "."}, mark: mark{kind: directory}}
	if err := p.applyMarks(dir, &at, names); err != nil {
		return f, err
	}
	f.xwhiteouts = at.opacity == xwhiteouts
	return f, nil
}

// ends tells whether nothing below p, which was opened before, is to be asked.
func (p *place) ends() bool { return p.up == nil && p.layer.opaque }

// exactListing tells whether the filesystem's d_ino is stat's st_ino, and its
// files' device that of their directory: true but for filesystems that are
// made of others.
func exactListing(dir *safefs.Dir) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(dir.Fd(), &fs); err != nil {
		return false, fmt.Errorf("statfs: %w", err)
	}
	switch fs.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return true, nil
	}
	return false, nil
}

// gone tells whether err says that there is no such directory.
func gone(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR)
}

// explain names the layer in an error.
func (l *layer) explain(err error) error {
	if err == nil {
		return nil
	}
	var kind *errno.Kind
	if errors.As(err, &kind) {
		return err
	}
	return fmt.Errorf("layer %s: %w", l.Name, err)
}
