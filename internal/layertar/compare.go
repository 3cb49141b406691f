package layertar

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// compare walks two unions side by side. A directory whose shares are the
// same in both is not entered.
type compare struct {
	ctx    context.Context
	s      *Source
	u, old *union
	yield  func(*event) error
	// held are directories on the way down that are told only when something
	// in them is.
	held []*event
	buf  [256]byte // for sameXattrs
}

func walkUnions(ctx context.Context, s *Source, yield func(*event) error) (err error) {
	u, err := openUnion(s.New, s.UpperStyle)
	if err != nil {
		return err
	}
	defer closing(&err, u.close)
	old, err := openUnion(s.Old, s.UpperStyle)
	if err != nil {
		return err
	}
	defer closing(&err, old.close)
	u.many = &sync.Mutex{}
	old.many = u.many
	u.lists, old.lists = true, true
	a, err := u.root()
	if err != nil {
		return err
	}
	defer closing(&err, a.close)
	b, err := old.root()
	if err != nil {
		return err
	}
	defer closing(&err, b.close)
	c := compare{ctx: ctx, s: s, u: u, old: old, yield: yield}
	return c.dir("", a, b)
}

// tell yields an event after the directories that lead to it.
func (c *compare) tell(ev *event) error {
	for _, h := range c.held {
		if h.quiet { // told before
			continue
		}
		h.quiet = true
		out := *h
		out.quiet = false
		if err := c.yield(&out); err != nil && !vanished(err) { // what was in it is told
			return err
		}
	}
	return c.yield(ev)
}

// added tells everything in d as added.
func (c *compare) added(path string, d *udir) error {
	return c.dir(path, d, &udir{})
}

func (c *compare) dir(path string, a, b *udir) error {
	if err := context.Cause(c.ctx); err != nil {
		return err
	}
	both := len(a.parts) > 0 && len(b.parts) > 0
	news, olds := c.u.feed(a, both), c.old.feed(b, both)
	defer news.stop()
	defer olds.stop()
	for {
		n, o, err := nextPair(news, olds)
		if err != nil || (n == nil && o == nil) {
			return err
		}
		err = c.pair(path, a, b, n, o)
		if vanished(err) && o != nil {
			err = c.gone(path, a, o)
		}
		if err != nil && !vanished(err) {
			return err
		}
	}
}

// pair judges one name: n is nil when it is gone, o when it is new.
func (c *compare) pair(path string, a, b *udir, n, o *uentry) error {
	if n == nil {
		return c.gone(path, a, o)
	}
	same, typed := false, o != nil && n.st.Type() == o.st.Type()
	if typed {
		var err error
		if same, err = c.same(n, o); err != nil || (same && !n.st.IsDir()) {
			return err
		}
	}
	ev := &event{path: join(path, n.name), kind: Modify, u: c.u, dir: a, ent: n}
	switch {
	case o == nil:
		ev.kind = Add
		return c.descend(ev, a, nil, nil)
	case !typed:
		return c.descend(ev, a, nil, nil)
	case n.st.IsDir() && same:
		return c.holding(ev, a, b, o)
	case n.st.IsDir():
		return c.descend(ev, a, b, o)
	}
	return c.tell(ev)
}

// gone tells a deletion, dated by the directory that it happened in.
func (c *compare) gone(path string, a *udir, o *uentry) error {
	ent := *o
	if len(a.parts) > 0 {
		st, err := a.parts[0].d.Stat(".")
		if err != nil {
			return err
		}
		ent.st.Mtime = st.Mtime
	}
	return c.tell(&event{path: join(path, o.name), kind: Delete, what: gone, ent: &ent})
}

// descend tells an entry and, for a directory, what is in it.
func (c *compare) descend(ev *event, a, b *udir, o *uentry) error {
	if !ev.ent.st.IsDir() {
		return c.tell(ev)
	}
	return c.into(ev, a, b, o, c.tell)
}

// holding goes into a directory that is told only if something in it is.
func (c *compare) holding(ev *event, a, b *udir, o *uentry) error {
	c.held = append(c.held, ev)
	err := c.into(ev, a, b, o, nil)
	c.held = c.held[:len(c.held)-1]
	return err
}

// into opens a directory, tells it with tell, if that is not nil, and compares
// what is in it: one that has vanished is not told.
func (c *compare) into(ev *event, a, b *udir, o *uentry, tell func(*event) error) (err error) {
	sub, err := c.u.open(a, ev.ent)
	if err != nil {
		return err
	}
	defer closing(&err, sub.close)
	if tell != nil {
		if err := tell(ev); err != nil {
			return err
		}
	}
	old := &udir{}
	if o != nil {
		if old, err = c.old.open(b, o); err != nil {
			return err
		}
		defer closing(&err, old.close)
		if same, err := sameShares(sub, old); err != nil || same {
			return err
		}
	}
	return c.dir(ev.path, sub, old)
}

// sameShares tells whether two directories are made of the very same ones.
func sameShares(a, b *udir) (bool, error) {
	if len(a.parts) != len(b.parts) {
		return false, nil
	}
	for i := range a.parts {
		x, errA := a.parts[i].d.Stat(".")
		y, errB := b.parts[i].d.Stat(".")
		if err := errors.Join(errA, errB); err != nil {
			return false, err
		}
		if x.Dev != y.Dev || x.Ino != y.Ino {
			return false, nil
		}
	}
	return true, nil
}

// same compares two files of one type as the peers do: owner, mode, device,
// attributes; and but for directories size and time.
func (c *compare) same(n, o *uentry) (bool, error) {
	a, b := &n.st, &o.st
	if a.Dev == b.Dev && a.Ino == b.Ino {
		return true, nil
	}
	ua, ga := containerOwner(c.s.Maps, a)
	ub, gb := containerOwner(c.s.OldMaps, b)
	if a.Mode != b.Mode || ua != ub || ga != gb || a.Rdev != b.Rdev {
		return false, nil
	}
	if !a.IsDir() && (a.Size != b.Size || !sameTime(a.Mtime, b.Mtime)) {
		return false, nil
	}
	return sameXattrs(n, o, c.buf[:])
}

// containerOwner translates an owner, or leaves one that has no translation.
func containerOwner(m idmap.Maps, st *safefs.Stat) (int, int) {
	uid, gid := int(st.UID), int(st.GID)
	if u, g, err := m.ToContainer(uid, gid); err == nil {
		return u, g
	}
	return uid, gid
}

// sameTime forgives a filesystem or stream that keeps whole seconds only.
func sameTime(a, b time.Time) bool {
	return a.Equal(b) || (a.Unix() == b.Unix() && (a.Nanosecond() == 0 || b.Nanosecond() == 0))
}

// sameXattrs compares what would be exported.
func sameXattrs(n, o *uentry, buf []byte) (bool, error) {
	if n.st.Type() == unix.S_IFLNK || (n.bare && o.bare) {
		return true, nil
	}
	a, _, err := exportXattrs(n, buf)
	if err != nil {
		return false, ofEntry(err)
	}
	b, _, err := exportXattrs(o, buf)
	if err != nil {
		return false, err
	}
	return slices.EqualFunc(a, b, func(x, y xattr) bool { return x.name == y.name && bytes.Equal(x.value, y.value) }), nil
}

// exportXattrs reads the attributes that are content, sorted by name: those of
// users, file capabilities and ACLs. meta says that another one calls the
// file a metacopy, in some style. buf is room for their names.
func exportXattrs(e *uentry, buf []byte) (out []xattr, meta bool, err error) {
	names := e.names
	if !e.listed {
		names, err = e.dir.ListxattrTo(buf, e.name)
	}
	if err != nil {
		if errors.Is(err, syscall.EOPNOTSUPP) {
			return nil, false, nil
		}
		return nil, false, err
	}
	for len(names) > 0 {
		first, rest, _ := bytes.Cut(names, []byte{0})
		names = rest
		n := string(first)
		if !exported(n) {
			meta = meta || (whiteout.IsPrivate(n) && strings.HasSuffix(n, ".metacopy"))
			continue
		}
		v, err := e.getxattr(n)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		out = append(out, xattr{n, v})
	}
	slices.SortFunc(out, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	return out, meta, nil
}

// exported tells whether an attribute is content. One with `=` in its name
// cannot be written in a PAX header.
func exported(name string) bool {
	switch {
	case whiteout.IsPrivate(name), strings.Contains(name, "="):
		return false
	case strings.HasPrefix(name, "user."), strings.HasPrefix(name, "system.posix_acl_"), name == "security.capability":
		return true
	}
	return false
}
