package layertar

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/unix"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// nameList holds a directory's names, sorted by what they are or hide:
// directories may have millions. While it is made, it takes some 20 bytes a
// name, and then, packed, what a name differs in from the one before.
type nameList struct {
	// text has for each name a mark (nameMark), the length
	// of what follows, and the name, or what the whiteout hides; at is where
	// each begins: the number of a block, and the offset in it (nameBlock). Both
	// are nil once it is packed.
	text [][]byte
	at   []uint32
	// packed has for each name, in order, the same mark, how many bytes it
	// shares with the one before, how many follow, and these. n is how many are
	// left of it; last is the name that was taken last, and mark its mark.
	packed, last []byte
	mark         nameMark
	n            int
	plain        int // how many were added that are no marks, as the listing tells
	whole        []byte
}

// listRoom is room for lists while they are made, one after the other.
type listRoom struct {
	dirents, first []byte
	text           [][]byte
	at             []uint32
}

// keptRoom is the most bytes of anything that is kept for the next list.
const keptRoom = 64 << 10

// nameBlock is the size of a block of names: only the first one grows.
const nameBlock = 1 << 20

// nameMark is 1 for the name of a whiteout (style Files), and the file's type
// above that, or 0 when the filesystem does not tell.
type nameMark byte

func markOf(typ uint32, white bool) nameMark {
	m := nameMark(typ >> 12 << 1)
	if white {
		m |= 1
	}
	return m
}

func (m nameMark) white() bool { return m&1 != 0 }

// typ is the type's bits as a mode has them.
func (m nameMark) typ() uint32 { return uint32(m>>1) << 12 }

// manyNames is from when on lists are made one at a time.
const manyNames = 1 << 16

// again makes the list empty, with the room that it has; of what is large, without.
func (n *nameList) again() {
	whole, last := n.whole[:0], n.last[:0]
	if cap(whole) > keptRoom {
		whole = nil
	}
	*n = nameList{whole: whole, last: last}
}

func (n *nameList) add(name []byte, mark nameMark, room *listRoom) error {
	if len(name) > 255 {
		return syscall.ENAMETOOLONG
	}
	last := len(n.text) - 1
	if last < 0 || len(n.text[last])+2+len(name) > nameBlock {
		if last == math.MaxUint32/nameBlock {
			return errno.New(errno.ErrNotSupported, "a directory has names of more than 4 GiB")
		}
		b := room.first[:0]
		if last++; last > 0 {
			b = make([]byte, 0, nameBlock)
		}
		n.text = append(n.text, b)
	}
	if !mark.white() && mark.typ() != unix.S_IFCHR {
		n.plain++
	}
	b := n.text[last]
	n.at = append(n.at, uint32(last)*nameBlock+uint32(len(b)))
	n.text[last] = append(append(b, byte(mark), byte(len(name))), name...)
	return nil
}

// entry is where a name's mark, length and bytes are.
func (n *nameList) entry(at uint32) []byte { return n.text[at/nameBlock][at%nameBlock:] }

func (n *nameList) key(at uint32) []byte {
	e := n.entry(at)
	return e[2:][:e[1]]
}

// pack sorts what was added, and gives the room back.
func (n *nameList) pack(room *listRoom) {
	slices.SortFunc(n.at, func(a, b uint32) int { return bytes.Compare(n.key(a), n.key(b)) })
	var before []byte
	for _, at := range n.at {
		key, same := n.key(at), 0
		for same < len(key) && same < len(before) && key[same] == before[same] {
			same++
		}
		n.whole = append(append(n.whole, n.entry(at)[0], byte(same), byte(len(key)-same)), key[same:]...)
		before = key
	}
	n.packed, n.n = n.whole, len(n.at)
	if 4*cap(n.at) <= keptRoom {
		room.at = n.at[:0]
	}
	if len(n.text) > 0 && cap(n.text[0]) <= keptRoom {
		room.first = n.text[0][:0]
	}
	if cap(n.text) > 0 {
		clear(n.text)
		room.text = n.text[:0]
	}
	n.text, n.at = nil, nil
}

// next takes the next name; false at the end.
func (n *nameList) next() bool {
	if n.n == 0 {
		return false
	}
	n.n--
	n.mark = nameMark(n.packed[0])
	rest := n.packed[3:][:n.packed[2]]
	n.last = append(n.last[:n.packed[1]], rest...)
	n.packed = n.packed[3+len(rest):]
	return true
}

// share lists one layer's share of a directory, in the order of the names that
// entries have or hide. The marks of style Files are taken out.
func (u *union) share(p *part) (*share, error) {
	s := &share{}
	return s, u.shareTo(s, p, &listRoom{})
}

// shareTo is share into one whose room may be used again; room is used meanwhile.
func (u *union) shareTo(s *share, p *part, room *listRoom) error {
	s.names.again()
	*s = share{u: u, p: p, names: s.names, seen: s.seen[:0]}
	s.names.text, s.names.at = room.text, room.at
	if room.dirents == nil {
		room.dirents = make([]byte, safefs.NamesBuf)
	}
	err := p.d.ReadNames(room.dirents, func(name []byte, typ uint32) error { return s.add(name, typ, room) })
	s.names.pack(room)
	if s.alone {
		u.many.Unlock()
	}
	if errors.Is(err, syscall.ENOENT) { // removed since it was opened, and thus empty
		err = nil
	}
	return err
}

// add takes in what is on disk under a name.
func (s *share) add(name []byte, typ uint32, room *listRoom) error {
	if len(s.names.at) == manyNames && s.u.many != nil {
		s.u.many.Lock()
		s.alone = true
	}
	if s.u.style != whiteout.Files || !bytes.HasPrefix(name, []byte(whiteout.Prefix)) {
		return s.names.add(name, markOf(typ, false), room)
	}
	switch mark, hidden := whiteout.Parse(string(name)); mark {
	case whiteout.Whiteout:
		return s.names.add([]byte(hidden), markOf(typ, true), room)
	case whiteout.Plain:
		return s.names.add(name, markOf(typ, false), room)
	case whiteout.Opaque:
		s.opaque = true
	case whiteout.Meta, whiteout.Invalid:
	}
	return nil
}

// share is the sorted listing of one layer's share of a directory.
type share struct {
	u     *union
	p     *part
	names nameList
	alone bool // it holds u.many while it is made
	// opaque says that the directory has the mark of the style Files.
	opaque bool
	// typed, if set, tells of which type, as the listing says it, no more than
	// the type is to be known; of others the stat says whether they are marks.
	typed func(typ uint32) bool
	// seen is what a native walk knows of the first names already.
	seen []seen
}

// listed is one name of a single share.
type listed struct {
	name  string
	st    safefs.Stat
	white bool // name is hidden below
}

// next stats the next name; false at the end.
func (s *share) next(l *listed) (ok bool, err error) {
	for !ok && err == nil {
		if !s.names.next() {
			return false, nil
		}
		ok, err = s.look(string(s.names.last), s.names.mark, l)
	}
	return ok, err
}

// look stats a name of the listing; false when it is gone.
func (s *share) look(name string, mark nameMark, l *listed) (ok bool, err error) {
	onDisk := name
	if mark.white() {
		onDisk = whiteout.Name(name)
	}
	*l = listed{name: name, white: mark.white()}
	if s.typed != nil && s.plain(mark) {
		l.st.Mode = mark.typ()
		return true, nil
	}
	l.st, err = s.p.d.Stat(onDisk)
	switch {
	case errors.Is(err, syscall.ENOENT):
		return false, nil
	case err != nil:
		return false, err
	case l.white && onDisk == fuseOpaque && whiteout.IsDevice(l.st.Mode, l.st.Rdev):
		return false, nil
	case l.white:
		return true, nil
	}
	if l.white, err = s.u.isMark(s.p, name, &l.st); errors.Is(err, syscall.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// plain tells whether a name's type is all that is asked for and cannot be a
// whiteout's.
func (s *share) plain(mark nameMark) bool {
	typ := mark.typ()
	switch {
	case mark.white(), typ == 0, typ == unix.S_IFCHR, typ == unix.S_IFREG && s.p.opaque == opaqueMarks:
		return false
	}
	return s.typed(typ)
}

// listing yields the union's entries of a directory, sorted by name.
type listing struct {
	dir    *udir
	shares []*share
	heads  []listed
	has    []bool
}

func (u *union) list(dir *udir) (*listing, error) {
	n := len(dir.parts)
	l := &listing{dir: dir, shares: make([]*share, n), heads: make([]listed, n), has: make([]bool, n)}
	for i := range dir.parts {
		var err error
		if l.shares[i], err = u.share(&dir.parts[i]); err == nil {
			err = l.advance(i)
		}
		if err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *listing) advance(i int) (err error) {
	l.has[i], err = l.shares[i].next(&l.heads[i])
	return err
}

// size is how many entries there may be.
func (l *listing) size() (n int) {
	for _, s := range l.shares {
		n += s.names.n + 1 // the head
	}
	return n
}

// next yields an entry; false at the end.
func (l *listing) next(e *uentry) (bool, error) {
	for {
		first := -1
		for i := range l.heads {
			if l.has[i] && (first < 0 || l.heads[i].name < l.heads[first].name) {
				first = i
			}
		}
		if first < 0 {
			return false, nil
		}
		found, err := l.take(l.heads[first].name, e)
		if found || err != nil {
			return found, err
		}
	}
}

// take passes over a name in all shares; the topmost one that has it decides.
func (l *listing) take(name string, e *uentry) (found bool, err error) {
	hidden := false
	for i := range l.heads {
		here := false
		for l.has[i] && l.heads[i].name == name {
			here = true
			if h := &l.heads[i]; !hidden && !h.white {
				*e, found = uentry{name: name, dir: l.dir.parts[i].d, at: i, st: h.st}, true
			}
			if err := l.advance(i); err != nil {
				return false, err
			}
		}
		hidden = hidden || here
	}
	return found, nil
}

// feedChunk is how many entries are handed over at once.
const feedChunk = 64

// feed yields a listing that another goroutine reads ahead: while its user
// compares, and another feed goes through another tree.
type feed struct {
	chunks chan feedPart
	quit   chan struct{}
	cur    []uentry
}

type feedPart struct {
	entries []uentry
	err     error
}

// feed starts the goroutine. It ends with stop, which must be called before
// dir is closed. attrs says that it is to look which entries have no attributes:
// what is compared is read by two goroutines then, and not by their user.
func (u *union) feed(dir *udir, attrs bool) *feed {
	f := &feed{chunks: make(chan feedPart, 2), quit: make(chan struct{})}
	if len(dir.parts) == 0 {
		close(f.chunks)
		return f
	}
	go f.run(u, dir, attrs)
	return f
}

func (f *feed) run(u *union, dir *udir, attrs bool) {
	defer close(f.chunks)
	var buf [256]byte
	l, err := u.list(dir)
	for more := err == nil; more; {
		part := feedPart{entries: make([]uentry, 0, min(feedChunk, l.size()))}
		for more && err == nil && len(part.entries) < cap(part.entries) {
			var e uentry
			if more, err = l.next(&e); more {
				e.bare = attrs && e.isBare(buf[:])
				part.entries = append(part.entries, e)
			}
		}
		if cap(part.entries) == 0 || err != nil {
			break
		}
		select {
		case f.chunks <- part:
		case <-f.quit:
			return
		}
	}
	if err != nil {
		select {
		case f.chunks <- feedPart{err: err}:
		case <-f.quit:
		}
	}
}

// isBare tells whether a file has no attributes that are content. Where that
// cannot be told, the comparison asks again. buf is room for their names.
func (e *uentry) isBare(buf []byte) bool {
	if e.st.Type() == unix.S_IFLNK {
		return false
	}
	names, err := e.dir.ListxattrTo(buf, e.name)
	if err != nil {
		return errors.Is(err, syscall.EOPNOTSUPP)
	}
	for len(names) > 0 {
		first, rest, _ := bytes.Cut(names, []byte{0})
		if exported(string(first)) {
			return false
		}
		names = rest
	}
	return true
}

// peek returns the next entry, nil at the end.
func (f *feed) peek() (*uentry, error) {
	for len(f.cur) == 0 {
		part, ok := <-f.chunks
		if !ok {
			return nil, nil
		}
		if part.err != nil {
			return nil, part.err
		}
		f.cur = part.entries
	}
	return &f.cur[0], nil
}

// drop passes over what peek returned.
func (f *feed) drop() { f.cur = f.cur[1:] }

// stop ends the goroutine and waits for it.
func (f *feed) stop() {
	close(f.quit)
	for range f.chunks { // until it is closed
	}
}

// nextPair returns the next name's entry of either feed, nil where it has none
// of that name; both are nil at the end.
func nextPair(f, g *feed) (a, b *uentry, err error) {
	if a, err = f.peek(); err != nil {
		return nil, nil, err
	}
	if b, err = g.peek(); err != nil {
		return nil, nil, err
	}
	if a != nil && b != nil {
		switch strings.Compare(a.name, b.name) {
		case -1:
			b = nil
		case 1:
			a = nil
		}
	}
	if a != nil {
		f.drop()
	}
	if b != nil {
		g.drop()
	}
	return a, b, nil
}
