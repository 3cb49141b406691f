package fusefs

import (
	"context"
	"encoding/binary"
	"hash/maphash"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/plyfs/plyfs/internal/vnode"
)

// Listings have no handles: READDIR names a directory and a place in it. The
// kernel keeps a copy of what it was answered when the server allows it, by how
// it answers the READDIR that comes to the end. docs/adr/0044 has the reasons,
// and why a copy is never believed for too long.
//
// A place (the "offset" of an entry) is where to go on behind that entry:
//
//	62      61 … 31       30 … 0
//	0       tag           key       behind the entry with that key
//	1       tag, all its bits       behind the last entry
//
// A key depends on nothing but the name, so that one can go on with a list that
// has changed meanwhile; what was read is kept on the shelf in case that very
// entry is gone. The tag is that of the list as it was answered, 0 where the
// kernel keeps no copies anyway: there places fit into 31 bits, for programs of
// 32 bits.
const (
	keyBits = 31
	lastKey = 1<<keyBits - 1 // behind the last entry, in lists without a tag
	endBit  = 1 << 62
	dotKey  = 1       // "." and "..", then all others
	spare   = 1 << 20 // keys at the top that no name has: equal ones are told apart by counting up
)

// Listings of more bytes, as getdents64(2) counts, are not left with the kernel:
// its copy ends the stream of who comes to it in the middle of another list, so
// those must be read with one call, in the buffers of every C library.
const keptSize = 2048

// late is how long the kernel may take to put an answer away that it has.
const late = 10 * time.Second

// dirent is an entry with its key.
type dirent struct {
	vnode.Dirent
	key uint32
}

// listing is a directory's list, "." and ".." first.
type listing struct {
	entries []dirent
	tag     uint64
}

// arrange gives the entries of a directory their keys.
func arrange(in *inode, parent uint64, list []vnode.Dirent) *listing {
	l := &listing{entries: make([]dirent, 0, len(list)+2)}
	l.entries = append(l.entries, dirent{vnode.Dirent{Name: ".", Ino: in.ino, Type: syscall.S_IFDIR}, dotKey},
		dirent{vnode.Dirent{Name: "..", Ino: parent, Type: syscall.S_IFDIR}, dotKey + 1})
	taken := make(map[uint32]struct{}, len(list))
	for _, d := range list {
		key := keyOf(d.Name)
		for has(taken, key) {
			key++
		}
		taken[key] = struct{}{}
		l.entries = append(l.entries, dirent{d, key})
	}
	return l
}

func has(set map[uint32]struct{}, key uint32) bool {
	_, ok := set[key]
	return ok
}

// keyOf is FNV-1a of the name, folded into what a key may be.
func keyOf(name string) uint32 {
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	h ^= h >> 32
	return dotKey + 2 + uint32(h%(lastKey-spare)) //nolint:gosec // below 1<<31
}

// place is where to go on behind entry i.
func (l *listing) place(i int) uint64 {
	switch {
	case i == len(l.entries)-1:
		return endOf(l.tag)
	case l.tag == 0:
		return uint64(l.entries[i].key)
	}
	return l.tag>>33<<keyBits | uint64(l.entries[i].key)
}

// endOf is the place behind the last entry of a list with that tag.
func endOf(tag uint64) uint64 {
	if tag == 0 {
		return lastKey
	}
	return endBit | tag>>2
}

// atEnd tells whether a place is behind the last entry of its list.
func atEnd(place uint64) bool { return place&endBit != 0 || place == lastKey }

// hasTag tells whether a place was made by a list with l's tag.
func (l *listing) hasTag(place uint64) bool { return place>>keyBits == l.tag>>33 }

// behind is the index of the entry that follows a place, if the list has the one
// before it.
func (l *listing) behind(place uint64) (int, bool) {
	key := uint32(place & lastKey)
	i := slices.IndexFunc(l.entries, func(d dirent) bool { return d.key == key })
	return i + 1, i >= 0
}

// size is what getdents64(2) fills with the list.
func (l *listing) size() (n int) {
	for _, d := range l.entries {
		n += (19 + len(d.Name) + 1 + 7) &^ 7
	}
	return n
}

// digest tells lists apart: names, files and types, in any order. It differs
// from one server to the next, so that nobody can choose names to confuse it.
func (s *Server) digest(list []vnode.Dirent) uint64 {
	sum := uint64(len(list))
	var h maphash.Hash
	var b [12]byte
	for _, d := range list {
		h.SetSeed(s.seed)
		binary.LittleEndian.PutUint64(b[:], d.Ino)
		binary.LittleEndian.PutUint32(b[8:], d.Type)
		_, _ = h.Write(b[:])
		_, _ = h.WriteString(d.Name)
		sum += h.Sum64()
	}
	return sum
}

// tag is that of a list, of which salt copies were allowed before; never 0.
func (s *Server) tag(digest, salt uint64) uint64 {
	var h maphash.Hash
	var b [16]byte
	h.SetSeed(s.seed)
	binary.LittleEndian.PutUint64(b[:], digest)
	binary.LittleEndian.PutUint64(b[8:], salt)
	_, _ = h.Write(b[:])
	return h.Sum64() | 1<<63
}

// copied is what the server knows of the kernel's copy of a directory's list.
// All of it is guarded by table.mu.
type copied struct {
	allowed bool      // the kernel may have one
	salt    uint64    // how many were allowed
	seen    uint64    // tag of a list that was read to its end once, without a copy
	reading []reading // what was answered and is not known to be put away
}

// reading is an answer from a list's beginning.
type reading struct {
	thread           uint32
	digest, gen, tag uint64
	whole            bool // it was all of the list, and may be copied
	informed         bool // it told attributes of directories
	at               time.Time
}

// beginList notes that thread is answered the list with digest, read in
// generation gen or later, and returns its tag.
func (s *Server) beginList(in *inode, thread uint32, digest, gen uint64) uint64 {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	c := in.copied
	if c == nil {
		c = &copied{}
		in.copied = c
	}
	c.doneLocked(thread)
	r := reading{thread: thread, digest: digest, gen: gen, tag: s.tag(digest, c.salt), at: time.Now()}
	c.reading = append(c.reading, r)
	return r.tag
}

// doneLocked removes the reading of a thread, and those that are long over, and
// returns the first.
func (c *copied) doneLocked(thread uint32) (mine reading) {
	old := time.Now().Add(-late)
	c.reading = slices.DeleteFunc(c.reading, func(r reading) bool {
		if r.thread == thread {
			mine = r
		}
		return r.thread == thread || r.at.Before(old)
	})
	if len(c.reading) == 0 {
		c.reading = nil
	}
	return mine
}

// wholeList notes that thread's answer can be copied, and whether it told
// attributes.
func (t *table) wholeList(in *inode, thread uint32, informed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range in.copied.reading {
		if in.copied.reading[i].thread == thread {
			in.copied.reading[i].whole, in.copied.reading[i].informed = true, informed
		}
	}
}

// mayCopy decides, when thread has come to the end of a list, whether the kernel
// may complete its copy. That is noted before the list is looked at for the last
// time: an announcement of a later generation drops the copy.
func (s *Server) mayCopy(ctx context.Context, in *inode, l vnode.Lister, thread uint32, place uint64) bool {
	able := s.copies.Load() && l.ListingHolds() && s.openToAll(ctx, in)
	r, ok := s.allow(in, thread, place, able)
	if !ok {
		return false
	}
	var right bool
	if s.opts.Generation != nil {
		right = r.gen != 0 && r.gen == s.generation()
	} else if list, err := l.ReadDir(ctx); err == nil {
		right = r.digest == s.digest(list)
	}
	return right
}

// allow enters a copy as allowed, if thread's answer can be one. A list that
// tells attributes has none before it was read twice: when the directories in it
// have been read the kernel doubts their access times, and one more answer tells
// it of all of them at once.
func (s *Server) allow(in *inode, thread uint32, place uint64, able bool) (reading, bool) {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	c := in.copied
	if c == nil {
		return reading{}, false
	}
	r := c.doneLocked(thread)
	asked := r.whole && place == endOf(r.tag) && r.tag == s.tag(r.digest, c.salt)
	if !able || !asked || len(c.reading) > 0 {
		return r, false
	}
	if r.informed && c.seen != r.tag {
		c.seen = r.tag
		return r, false
	}
	c.allowed = true
	c.salt++
	s.table.armLocked(in)
	return r, true
}

// openToAll tells whether everybody who reaches a directory may read it: copies
// are read without asking.
func (s *Server) openToAll(ctx context.Context, in *inode) bool {
	if s.opts.Check == nil {
		return true
	}
	a, err := in.node.Attr(ctx)
	return err == nil && a.Mode&4 != 0
}

func (s *Server) generation() uint64 {
	if s.opts.Generation == nil {
		return 0
	}
	return s.opts.Generation()
}

// withhold answers a READDIR at the end of a list so that the kernel makes no
// copy of the list. The kernel does so at an answer of no bytes, and takes as
// many entries from any other as are there: none, if the first is cut off. What
// follows is 32 bytes where an entry with attributes has at least 152, or an
// entry whose name would be longer than the answer.
func withhold(out *fuse.DirEntryList, plus bool) {
	if plus {
		out.AddDirEntry(fuse.DirEntry{Name: "x"})
		return
	}
	if e := out.AddDirLookupEntry(fuse.DirEntry{Name: "x"}); e != nil {
		e.NodeId, e.EntryValid = 1, 255 // inode number and length of the name
	}
}
