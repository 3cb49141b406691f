package fuseoverlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/safefs"
)

// caller is who asks for a new file: its owner to be, and its umask.
type caller struct{ uid, gid, umask uint32 }

// creation is a new entry of a directory.
type creation struct {
	dir  *node
	name string
	typ  uint32
	mode uint32 // permissions, before the umask
	rdev uint64
	who  caller
	// make makes the file called name in d with the permissions mode.
	make func(d *safefs.Dir, name string, mode uint32) error
	// made returns the attributes of what make has made; nil: it is looked up.
	made func() (safefs.Stat, error)
	// bytes is what it may take of a bound.
	bytes int64
	// over: a whiteout was in its place.
	over bool
	// acl is whether dir has a default ACL, found out by making.
	acl aclState
	// keepOwner: a further link of a file that has an owner.
	keepOwner bool
	// aside is the owner and mode that were kept in an attribute.
	aside *override
}

// mkdir makes a directory. Like the other calls that make something it returns
// the node with one more look-up, and its attributes. The kernel has made sure
// that there is nothing of that name in the union.
func (o *Overlay) mkdir(ctx context.Context, dir *node, name string, mode uint32, who caller) (*node, safefs.Stat, error) {
	return o.create(ctx, &creation{dir: dir, name: name, typ: unix.S_IFDIR, mode: mode & 0o7777, who: who, bytes: blockRoom,
		make: func(d *safefs.Dir, name string, mode uint32) error { return d.Mkdir(name, mode) }})
}

// mknod makes a file of mode's type.
func (o *Overlay) mknod(ctx context.Context, dir *node, name string, mode, rdev uint32, who caller) (*node, safefs.Stat, error) {
	typ := mode & unix.S_IFMT
	if typ == 0 {
		typ = unix.S_IFREG
	}
	if typ == unix.S_IFCHR && rdev == 0 {
		return nil, safefs.Stat{}, errno.New(errno.ErrForbidden, "%q: a character device 0:0 is a mark of deletion and cannot be made", name)
	}
	if typ == unix.S_IFREG {
		return o.mkfile(ctx, dir, name, mode&0o7777, who)
	}
	return o.create(ctx, &creation{dir: dir, name: name, typ: typ, mode: mode & 0o7777, who: who,
		rdev: uint64(rdev), make: func(d *safefs.Dir, name string, mode uint32) error {
			err := d.Mknod(name, typ|mode, uint64(rdev))
			if errors.Is(err, syscall.EPERM) && o.mayStandFor(typ) {
				err = d.Mknod(name, unix.S_IFREG|mode, 0)
			}
			return err
		}})
}

// mkfile makes a regular file, and keeps it open: it is about to be written.
func (o *Overlay) mkfile(ctx context.Context, dir *node, name string, mode uint32, who caller) (*node, safefs.Stat, error) {
	fd := -1
	n, st, err := o.create(ctx, &creation{dir: dir, name: name, typ: unix.S_IFREG, mode: mode, who: who,
		make: func(d *safefs.Dir, name string, mode uint32) (err error) {
			fd, err = d.OpenFD(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, mode)
			return err
		}, made: func() (safefs.Stat, error) { return safefs.StatFD(fd) }})
	if err != nil {
		if fd >= 0 {
			closeFDs([]int{fd})
		}
		return nil, st, err
	}
	o.fds.put(n, &backing{fd: fd, write: true, upper: true})
	return n, st, nil
}

// symlink makes a symlink.
func (o *Overlay) symlink(ctx context.Context, dir *node, name, target string, who caller) (*node, safefs.Stat, error) {
	return o.create(ctx, &creation{dir: dir, name: name, typ: unix.S_IFLNK, mode: 0o777, who: who, bytes: textRoom(target),
		make: func(d *safefs.Dir, name string, _ uint32) error { return d.Symlink(target, name) }})
}

func (o *Overlay) create(ctx context.Context, c *creation) (*node, safefs.Stat, error) {
	if err := o.ready(ctx, c.dir, c.name); err != nil {
		return nil, safefs.Stat{}, err
	}
	if err := o.quota.room(c.bytes+anyRoom, 1); err != nil {
		return nil, safefs.Stat{}, err
	}
	o.renameMu.RLock()
	defer o.renameMu.RUnlock()
	c.dir.dir.mu.Lock()
	defer c.dir.dir.mu.Unlock()
	var st safefs.Stat
	err := o.inUpperLocked(c.dir, func(d *safefs.Dir) (err error) {
		st, err = o.makeLocked(d, c)
		o.quota.settleDir(d)
		return err
	})
	if err != nil {
		return nil, st, err
	}
	o.quota.set(&st)
	if c.aside != nil {
		c.aside.show(&st)
	}
	n := newNode(st.Type(), o.shownIno(st.Dev, st.Ino))
	n.setAside(c.aside)
	n.set(flagUp)
	if n.isDir() {
		n.setStack([]*place{{tree: o.tree, layer: o.tree.layers[0], up: c.dir.upper(), name: c.name, dev: st.Dev, ino: st.Ino}})
		n.dir.acl = c.dir.dir.acl // a default ACL is inherited
		n.dir.idx.complete = true // it is new, and hides what is below: nobody is asked for what is not in it
	}
	n.setIf(c.typ == unix.S_IFREG && c.acl != aclSome, flagBare)
	st.Ino = n.ino
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	o.addLocked(n, c.dir, c.name)
	return n, st, nil
}

// ready does what comes before the locks of a change of name in dir.
func (o *Overlay) ready(ctx context.Context, dir *node, name string) error {
	if !dir.isDir() {
		return syscall.ENOTDIR
	}
	if err := o.mayWrite(); err != nil {
		return err
	}
	if err := o.checkName(name); err != nil {
		return err
	}
	return o.copyUp(ctx, dir, allData)
}

// inUpperLocked calls f with dir's upper directory; dir is locked for writing.
func (o *Overlay) inUpperLocked(dir *node, f func(d *safefs.Dir) error) error {
	if dir.dir.dead {
		return fmt.Errorf("the directory was removed: %w", syscall.ENOENT)
	}
	dir.upper().untouched.Store(false)
	return dir.upper().with(f)
}

// makeLocked makes the file in d, the upper directory of c.dir.
func (o *Overlay) makeLocked(d *safefs.Dir, c *creation) (st safefs.Stat, err error) {
	acl := o.defaultACLLocked(c.dir, d)
	c.acl = acl
	mode := c.mode
	if acl != aclSome {
		mode &^= c.who.umask
	}
	foreign, err := o.foreignOwner(d, c)
	if err != nil {
		return st, err
	}
	if foreign {
		// In one step, with its owner.
		if c.over, err = o.work.whiteoutAt(d, c.name); err != nil {
			return st, err
		}
		return o.makeStagedLocked(d, c, mode, acl)
	}
	err = c.make(d, c.name, o.modeOf(c.typ, mode))
	switch {
	case errors.Is(err, syscall.EEXIST):
		if c.over, err = o.work.whiteoutAt(d, c.name); err != nil {
			return st, err
		}
		return o.makeStagedLocked(d, c, mode, acl)
	case err != nil:
		return st, err
	}
	if st, err = o.own(d, c.name, c, mode); err != nil {
		return st, errors.Join(err, removeTree(d, c.name))
	}
	if c.typ == unix.S_IFDIR && len(c.dir.below()) > 0 {
		// Only to spare later look-ups below: there is nothing of that name.
		if err := o.markOpaque(d, c.name); err != nil {
			return st, errors.Join(err, removeTree(d, c.name))
		}
	}
	return st, nil
}

// foreignOwner tells whether a file made in d, the upper directory of c.dir,
// would not have the owner that it is to have.
func (o *Overlay) foreignOwner(d *safefs.Dir, c *creation) (bool, error) {
	switch {
	case c.keepOwner:
		return false, nil
	case o.aside != "" || int(c.who.uid) != os.Geteuid():
		return true, nil
	case int(c.who.gid) == os.Getegid():
		return false, nil
	}
	parent, err := d.Stat(".")
	return parent.Mode&unix.S_ISGID == 0, err
}

// makeStagedLocked makes the file in the work directory, and moves it, with
// owner and all, into its place, where a whiteout may be (c.over).
func (o *Overlay) makeStagedLocked(d *safefs.Dir, c *creation, mode uint32, acl aclState) (st safefs.Stat, err error) {
	s, name, done, err := o.stageLike(d, acl)
	if err != nil {
		return st, err
	}
	exchanged := false
	defer func() {
		if derr := done(err != nil || exchanged); derr != nil {
			o.log.Warnf("%s stays in the work directory until the next mount: %v", name, derr)
		}
	}()
	if err := c.make(s, name, o.modeOf(c.typ, mode)); err != nil {
		return st, err
	}
	if st, err = o.own(s, name, c, mode); err != nil {
		return st, err
	}
	if c.typ != unix.S_IFDIR {
		return st, s.Rename(name, d, c.name, 0)
	}
	if c.over || len(c.dir.below()) > 0 {
		if err := o.markOpaque(s, name); err != nil {
			return st, err
		}
	}
	if exchanged = c.over; exchanged {
		return st, o.work.moveDir(s, name, d, c.name, unix.RENAME_EXCHANGE)
	}
	return st, o.work.moveDir(s, name, d, c.name, 0)
}

// stageLike returns a directory in work where a new file inherits what it would
// in d, and a name there. done is called at the end, and told whether something
// of that name may be left.
func (o *Overlay) stageLike(d *safefs.Dir, acl aclState) (s *safefs.Dir, name string, done func(left bool) error, err error) {
	name = o.work.name()
	st, err := d.Stat(".")
	if err != nil {
		return nil, "", nil, err
	}
	if acl != aclSome && st.Mode&unix.S_ISGID == 0 {
		return o.work.stage, name, func(left bool) error {
			if !left {
				return nil
			}
			return removeTree(o.work.stage, name)
		}, nil
	}
	if err := o.work.stage.Mkdir(name, 0o700); err != nil {
		return nil, "", nil, err
	}
	s, err = o.work.stage.OpenDir(name)
	if err == nil {
		if err = o.likeParent(d, s, acl); err != nil {
			err = errors.Join(err, s.Close())
		}
	}
	if err != nil {
		return nil, "", nil, errors.Join(err, removeTree(o.work.stage, name))
	}
	return s, name, func(bool) error { return errors.Join(s.Close(), removeTree(o.work.stage, name)) }, nil
}

// likeParent gives the staging directory s what new files inherit from d.
func (o *Overlay) likeParent(d, s *safefs.Dir, acl aclState) error {
	if acl == aclSome {
		v, err := d.Getxattr(".", defaultACL)
		if err != nil {
			return err
		}
		if err := s.Setxattr(".", defaultACL, v, 0); err != nil {
			return err
		}
	}
	st, err := d.Stat(".")
	if err != nil || st.Mode&unix.S_ISGID == 0 {
		return err
	}
	return errors.Join(s.Chown(".", -1, int(st.GID)), s.Chmod(".", 0o2700))
}

// own gives a new file its owner. A directory with the set-group-ID bit has
// handed down its group, and the bit, already.
func (o *Overlay) own(d *safefs.Dir, name string, c *creation, mode uint32) (safefs.Stat, error) {
	look := c.made
	if look == nil {
		look = func() (safefs.Stat, error) { return d.Stat(name) }
	}
	st, err := look()
	if err != nil || c.keepOwner {
		return st, err
	}
	if o.keepsAside(st.Type()) {
		return st, o.ownAside(access{dir: d, name: name}, c, mode, &st)
	}
	gid := c.who.gid
	if o.aside != "" || st.UID != c.who.uid || st.GID != gid {
		parent, err := d.Stat(".")
		if o.aside != "" {
			parent, err = o.dirShown(c.dir)
		}
		if err != nil {
			return st, err
		}
		if parent.Mode&unix.S_ISGID != 0 {
			gid = parent.GID
		}
	}
	if st.UID == c.who.uid && st.GID == gid {
		return st, nil
	}
	return o.reown(d, name, &st, int(c.who.uid), int(gid))
}

// reown changes a new file's owner, without what that does to its mode.
func (o *Overlay) reown(d *safefs.Dir, name string, st *safefs.Stat, uid, gid int) (safefs.Stat, error) {
	lost, err := o.giveTo(uid, gid, func(uid, gid int) error { return d.Chown(name, uid, gid) })
	if err != nil && !o.asideOnly(err) {
		return *st, err
	}
	if st.Mode&0o6000 != 0 && st.Type() != unix.S_IFLNK && !st.IsDir() {
		if err := d.Chmod(name, st.Mode&0o7777&^lost); err != nil {
			return *st, err
		}
	}
	return d.Stat(name)
}

const (
	accessACL  = idmap.AccessACL
	defaultACL = idmap.DefaultACL
)

// defaultACLLocked tells whether dir, whose upper directory is d, has a
// default ACL, which then takes the umask's place.
func (o *Overlay) defaultACLLocked(dir *node, d *safefs.Dir) aclState {
	if o.c.NoACL || o.c.NoXattrs {
		return aclNone
	}
	if dir.dir.acl != aclUnknown {
		return dir.dir.acl
	}
	acl := aclNone
	if _, err := d.Getxattr(".", defaultACL); err == nil {
		acl = aclSome
	}
	dir.dir.acl = acl
	return acl
}

// markOpaque makes name in d hide what is below it.
func (o *Overlay) markOpaque(d *safefs.Dir, name string) error {
	return o.work.loans.at(d, name, func() error {
		if o.work.prefix != "" {
			return d.Setxattr(name, o.work.prefix+"opaque", []byte("y"), 0)
		}
		sub, err := d.OpenDir(name)
		if err != nil {
			return err
		}
		err = sub.Mknod(opaqueFile, unix.S_IFREG|0o600, 0)
		if errors.Is(err, syscall.EEXIST) {
			err = nil
		}
		return errors.Join(err, sub.Close())
	})
}

// link makes name in dir a further name of n.
func (o *Overlay) link(ctx context.Context, n, dir *node, name string) (safefs.Stat, error) {
	if n.isDir() {
		return safefs.Stat{}, syscall.EPERM
	}
	if err := o.ready(ctx, dir, name); err != nil {
		return safefs.Stat{}, err
	}
	if err := o.copyUp(ctx, n, allData); err != nil {
		return safefs.Stat{}, err
	}
	if err := o.quota.room(anyRoom, 0); err != nil {
		return safefs.Stat{}, err
	}
	r, err := o.refOf(n)
	if err != nil {
		return safefs.Stat{}, err
	}
	err = o.linkRef(n, r, dir, name)
	if err = errors.Join(err, r.Close()); err != nil {
		return safefs.Stat{}, err
	}
	o.named(n)
	st, err := o.stat(n)
	if err == nil {
		o.hold(n)
	}
	return st, err
}

// refOf returns a Ref of an upper file that is the caller's.
func (o *Overlay) refOf(n *node) (r *safefs.Ref, err error) {
	err = o.withUpper(n, func(a access) error {
		if a.ref != nil {
			r, err = a.ref.Dup()
		} else {
			r, err = a.dir.Ref(a.name)
		}
		return err
	})
	return r, err
}

func (o *Overlay) linkRef(n *node, r *safefs.Ref, dir *node, name string) error {
	o.renameMu.RLock()
	defer o.renameMu.RUnlock()
	dir.dir.mu.Lock()
	defer dir.dir.mu.Unlock()
	st, err := r.Stat()
	if err != nil {
		return err
	}
	origin := n.number() != o.shownIno(st.Dev, st.Ino)
	if origin {
		if err := o.impureLocked(dir); err != nil {
			return err
		}
	}
	if err := o.recordLinks(n); err != nil {
		return err
	}
	c := &creation{dir: dir, name: name, typ: n.typ, keepOwner: true,
		make: func(d *safefs.Dir, name string, _ uint32) error { return r.Link(d, name) }}
	if err := o.inUpperLocked(dir, func(d *safefs.Dir) error {
		_, err := o.makeLocked(d, c)
		o.quota.settleDir(d)
		return err
	}); err != nil {
		return err
	}
	o.treeMu.Lock()
	o.addKeyLocked(n, fileID{st.Dev, st.Ino})
	o.bindLocked(n, dir, name)
	o.treeMu.Unlock()
	return nil
}

// recordLinks writes down by how much the count shown of an indexed file differs
// from its upper one's.
func (o *Overlay) recordLinks(n *node) error {
	idx := n.indexName()
	if idx == "" {
		return nil
	}
	s := n.rare()
	s.recording.Lock()
	defer s.recording.Unlock()
	n.copyMu.Lock()
	diff := s.links.diff
	n.copyMu.Unlock()
	err := o.work.loans.at(o.work.index, idx, func() error {
		return o.work.index.Setxattr(idx, o.work.prefix+"nlink", formatLinks('U', diff), 0)
	})
	if err != nil {
		return fmt.Errorf("index of hard links: %w", err)
	}
	return nil
}

// linksChanged changes what recordLinks writes and writes it, after a step by
// which names in the upper became more or names in lower layers fewer. Before it,
// a kill between would leave a count that is too low, for which the index entry,
// and what was written, is removed with names left; one that is too high keeps an
// entry for nothing.
func (o *Overlay) linksChanged(n *node, change int) {
	if n.indexName() == "" {
		return
	}
	n.copyMu.Lock()
	n.rare().links.diff += change
	n.copyMu.Unlock()
	if err := o.recordLinks(n); err != nil {
		o.log.Warnf("the link count of file %d will be too high after the next mount: %v", n.number(), err)
	}
}

// unnamed makes a regular file without a name on dir's filesystem (O_TMPFILE).
func (o *Overlay) unnamed(ctx context.Context, dir *node, mode uint32, who caller) (*node, safefs.Stat, error) {
	if err := o.ready(ctx, dir, "unnamed"); err != nil {
		return nil, safefs.Stat{}, err
	}
	if err := o.quota.room(0, 1); err != nil {
		return nil, safefs.Stat{}, err
	}
	if !o.work.unnamed {
		return nil, safefs.Stat{}, errno.New(errno.ErrNotSupported, "the upper's filesystem has no files without a name")
	}
	o.renameMu.RLock()
	defer o.renameMu.RUnlock()
	dir.dir.mu.Lock()
	defer dir.dir.mu.Unlock()
	var r *safefs.Ref
	var st safefs.Stat
	var kept *override
	err := o.inUpperLocked(dir, func(d *safefs.Dir) (err error) {
		if o.defaultACLLocked(dir, d) != aclSome {
			mode &^= who.umask
		}
		if r, err = d.OpenTemp(o.modeOf(unix.S_IFREG, mode&0o7777)); err != nil {
			return err
		}
		if st, err = r.Stat(); err == nil && o.aside != "" {
			c := creation{dir: dir, typ: unix.S_IFREG, who: who}
			err = o.ownAside(access{ref: r}, &c, mode, &st)
			kept = c.aside
		} else if err == nil {
			err = ownUnnamed(r, &st, d, who)
		}
		if err != nil {
			err = errors.Join(err, r.Close())
		}
		return err
	})
	if err != nil {
		return nil, st, err
	}
	o.quota.set(&st)
	if kept != nil {
		kept.show(&st)
	}
	n := newNode(unix.S_IFREG, o.shownIno(st.Dev, st.Ino))
	n.setAside(kept)
	n.set(flagUp)
	if err := o.holdUnnamed(n, r); err != nil {
		return nil, st, err
	}
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	o.addLocked(n, nil, "")
	return n, st, nil
}

// ownUnnamed gives a new file without a name its owner; st is its attributes.
func ownUnnamed(r *safefs.Ref, st *safefs.Stat, d *safefs.Dir, who caller) error {
	parent, err := d.Stat(".")
	if err != nil {
		return err
	}
	gid := who.gid
	if parent.Mode&unix.S_ISGID != 0 {
		gid = parent.GID
	}
	if st.UID == who.uid && st.GID == gid {
		return nil
	}
	if err := r.Chown(int(who.uid), int(gid)); err != nil {
		return err
	}
	*st, err = r.Stat()
	return err
}
