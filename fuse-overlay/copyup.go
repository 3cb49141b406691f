package fuseoverlay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// allData says that a copy-up takes the whole content.
const allData = int64(-1)

// metaOnly says that none of it is needed, if that can be written down.
const metaOnly = int64(-2)

// copyUp makes n upper, with the directories above it. Of a regular file
// whose content is about to be cut at size, only that much is copied;
// allData copies everything. No lock is held by the caller.
func (o *Overlay) copyUp(ctx context.Context, n *node, size int64) error {
	_, err := o.cutUp(ctx, n, size)
	return err
}

// cutUp is copyUp, and tells whether the file is cut already, as of now: nothing is
// left to be done to it for that.
func (o *Overlay) cutUp(ctx context.Context, n *node, size int64) (cut bool, err error) {
	if n.is(flagUp) && (size == metaOnly || !n.lacksData()) {
		return false, nil
	}
	if err := o.mayWrite(); err != nil {
		return false, err
	}
	for {
		n.copyMu.Lock()
		if n.is(flagUp) && (size == metaOnly || n.data() == nil) {
			n.copyMu.Unlock()
			return false, nil
		}
		if wait := n.copying(); wait != nil {
			n.copyMu.Unlock()
			if err := await(ctx, wait); err != nil {
				return false, err
			}
			continue
		}
		done := make(chan struct{})
		n.rare().copying = done
		n.copyMu.Unlock()
		err := errMoved
		for errors.Is(err, errMoved) {
			cut, err = o.copyUpAlone(ctx, n, size)
		}
		n.copyMu.Lock()
		n.rare().copying = nil
		n.copyMu.Unlock()
		close(done)
		return cut, err
	}
}

// lacksData tells whether n is upper as a copy of metadata only.
func (n *node) lacksData() bool {
	if n.typ != unix.S_IFREG {
		return false
	}
	n.copyMu.Lock()
	defer n.copyMu.Unlock()
	return n.data() != nil
}

// metaUp is copyUp for changes of attributes: a metadata-only copy suffices.
func (o *Overlay) metaUp(ctx context.Context, n *node) error {
	if n.is(flagUp) {
		return o.mayWrite()
	}
	return o.copyUp(ctx, n, metaOnly)
}

// copyUpAlone does it, being the only one to.
func (o *Overlay) copyUpAlone(ctx context.Context, n *node, size int64) (cut bool, err error) {
	if n.is(flagUp) {
		err := o.completeData(ctx, n, size)
		o.settleNode(n)
		return false, err
	}
	if err := o.parentsUp(ctx, n); err != nil {
		return false, err
	}
	c, err := o.takeEarly(ctx, n, size)
	switch {
	case err != nil:
	case c != nil:
		err = o.placeCopy(n, c)
	default:
		cut, err = o.copyNow(ctx, n, size)
	}
	if err == nil {
		o.copyUps.Add(1)
		o.tellSplit(n)
		o.settleNode(n)
	}
	return cut, err
}

// copyNow makes a copy, and puts it in its place.
func (o *Overlay) copyNow(ctx context.Context, n *node, size int64) (cut bool, err error) {
	p, err := o.planCopy(n, size)
	if err != nil {
		return false, err
	}
	defer p.close()
	if err := o.copyRoom(ctx, p); err != nil {
		return false, err
	}
	switch {
	case n.isDir():
		return false, o.copyDir(n, p)
	case n.typ != unix.S_IFREG:
		return false, o.copySpecial(n, p)
	}
	return p.cut, o.copyRegular(ctx, n, p)
}

// parentsUp copies up the directories above n, top first.
func (o *Overlay) parentsUp(ctx context.Context, n *node) error {
	var chain []*node
	o.treeMu.Lock()
	for d := n.home.dir; d != nil && !d.is(flagUp); d = d.home.dir {
		d.lookups++
		chain = append(chain, d)
	}
	o.treeMu.Unlock()
	var err error
	for i := len(chain) - 1; i >= 0; i-- {
		if err == nil {
			err = o.copyUp(ctx, chain[i], allData)
		}
		o.forget(chain[i], 1)
	}
	return err
}

// copyPlan is all that a copy will be, read before anything is written.
type copyPlan struct {
	from    spot    // attributes
	src     *source // the content, if that is there too and wanted
	st      safefs.Stat
	size    int64 // how much data
	target  string
	xattrs  []xattr
	origin  []byte
	index   string // name in the index of a hard-linked file
	aside   *override
	meta    bool // none of the data
	cut     bool // what there is of it is all that is to be, and changed by that now
	older   bool // cut, and its file was made before
	standIn bool // a regular file that stands for a device
	bare    bool // set-ID bits were lost (squash.go)
}

// close gives back what the plan has open.
func (p *copyPlan) close() {
	if p.src != nil {
		p.src.close()
	}
}

type xattr struct {
	name  string
	value []byte
}

func (o *Overlay) planCopy(n *node, size int64) (_ *copyPlan, err error) {
	p := &copyPlan{from: n.lower}
	if n.isDir() {
		p.from = n.stack()[0].spot()
	}
	if o.wantsData(n, size) {
		// By its descriptor, as one file and with fewer walks.
		if p.src, err = openSource(p.from); err == nil {
			if err = o.look(access{ref: p.src.ref}, n, p); err != nil {
				p.src.close()
			}
		}
	} else {
		err = p.from.with(func(a access) error { return o.look(a, n, p) })
	}
	if err != nil {
		return nil, fmt.Errorf("plan the copy of %q: %w", p.from.name, err)
	}
	p.aside = o.asideOf(n, &p.st)
	p.standIn = p.aside.standsIn(p.st.Type())
	if p.st.Type() != n.typ && !p.standIn {
		return nil, p.from.stale()
	}
	if p.size = int64(p.st.Size); size >= 0 {
		p.cut = size <= p.size && n.typ == unix.S_IFREG && p.aside == nil && p.plain()
		p.size = min(size, p.size)
	}
	if o.work.prefix == "" {
		return p, nil
	}
	o.planMarks(n, p, size)
	return p, nil
}

// plain tells whether the file has nothing that goes when it is truncated: set-ID bits,
// a capability.
func (p *copyPlan) plain() bool {
	return p.st.Mode&0o6000 == 0 && !slices.ContainsFunc(p.xattrs, func(x xattr) bool { return x.name == "security.capability" })
}

// wantsData tells whether a copy of n up to size takes data from where its
// attributes are.
func (o *Overlay) wantsData(n *node, size int64) bool {
	if n.typ != unix.S_IFREG || size == 0 || size == metaOnly && o.c.Metacopy {
		return false
	}
	n.copyMu.Lock()
	defer n.copyMu.Unlock()
	return n.data() == nil
}

// planMarks decides on what the copy says of where it comes from.
func (o *Overlay) planMarks(n *node, p *copyPlan, size int64) {
	if n.isDir() && n.stack()[0].empty {
		return // p.from is not the directory itself
	}
	if p.src != nil {
		p.origin = o.originAt(p.src.ref.Fd(), ".", p.st.Dev)
	} else {
		p.origin = o.originOf(p.from, p.st.Dev)
	}
	if n.isDir() {
		return
	}
	// The data of a file of several names is found by one of them only.
	p.meta = size == metaOnly && o.c.Metacopy && n.typ == unix.S_IFREG && p.size > 0 && p.st.Nlink == 1
	if p.st.Nlink > 1 && o.work.index != nil && len(p.origin) > 0 && o.canMark(n.typ) {
		p.index = indexNameOf(p.origin)
	}
	if p.st.Nlink > 1 && p.index == "" {
		p.origin = nil // its other names are copied by themselves, and are other files then
	}
}

// look reads what there is of n to copy but data.
func (o *Overlay) look(a access, n *node, p *copyPlan) (err error) {
	if p.src != nil {
		p.st = p.src.st
	} else if p.st, err = a.stat(); err != nil {
		return err
	}
	o.unmap(&p.st)
	if p.st.Type() == unix.S_IFLNK {
		if p.target, err = a.readlink(); err != nil {
			return err
		}
	}
	if !n.is(flagNaked) { // else it is known to have none
		p.xattrs, err = o.copiedXattrs(a)
	}
	return err
}

// copiedXattrs reads the attributes that belong to the content.
func (o *Overlay) copiedXattrs(a access) ([]xattr, error) {
	names, err := a.listxattr()
	if err != nil && !noXattrs(err) {
		return nil, err
	}
	var out []xattr
	for _, name := range names {
		if _, ok := o.c.Formats.unescape(name); !ok {
			continue
		}
		v, err := a.getxattr(name)
		if noXattrs(err) {
			continue
		}
		if err == nil {
			v, err = o.unmapACL(a, name, v)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, xattr{name, v})
	}
	return out, nil
}

// dress gives a staged file, made as st says, owner, attributes, mode and, last,
// times.
func (o *Overlay) dress(a access, p *copyPlan, st *safefs.Stat) error {
	aside := o.keepsAside(p.st.Type())
	if !aside {
		if err := o.ownCopy(a, p, st); err != nil && !o.asideOnly(err) {
			return err
		}
	}
	for _, x := range p.xattrs {
		if err := a.setxattr(x.name, x.value, 0); err != nil && !o.mayLose(x.name, err) {
			return err
		}
	}
	// An empty record, where there is no handle, says that it was copied up.
	if o.canMark(p.st.Type()) {
		if err := a.setxattr(o.work.prefix+"origin", p.origin, 0); err != nil && !o.mayLose("", err) {
			return err
		}
	}
	var err error
	if aside {
		err = o.copyOwner(a, p)
	} else if err = p.chmod(a, st); err != nil && o.asideOnly(err) {
		err = nil
	}
	if err != nil {
		return err
	}
	return p.utimens(a)
}

// utimens gives a staged file its times.
func (p *copyPlan) utimens(a access) error {
	mtime := p.st.Mtime
	switch {
	case p.older:
		return a.ref.Touch(p.st.Atime)
	case p.cut:
		mtime = time.Time{} // it is that of what was just made
	}
	return a.utimens(p.st.Atime, mtime)
}

// ownCopy sets the owner where it is not right. Of set-ID bits it may leave none.
func (o *Overlay) ownCopy(a access, p *copyPlan, st *safefs.Stat) error {
	if st.UID == p.st.UID && st.GID == p.st.GID {
		return nil
	}
	if st.Mode&0o6000 != 0 {
		st.Mode = ^uint32(0) // not known afterwards
	}
	lost, err := o.giveTo(int(p.st.UID), int(p.st.GID), a.chown)
	if lost &= p.st.Mode; lost != 0 && !p.st.IsDir() {
		p.st.Mode &^= lost
		p.bare = true
	}
	return err
}

// chmod sets the mode where it is not right. Attributes come before it: an
// ordinary user may set them only on what that mode lets it write.
func (p *copyPlan) chmod(a access, st *safefs.Stat) error {
	if st.Mode == p.st.Mode || p.st.Type() == unix.S_IFLNK {
		return nil
	}
	return a.chmod(p.st.Mode & 0o7777)
}

// mayLose tells whether an attribute that cannot be set is no reason to fail:
// the upper's filesystem does not know its kind, or we may not set it. ACLs and
// capabilities are never lost, but for the capabilities of a file whose owner may
// be lost too (squash.go).
func (o *Overlay) mayLose(name string, err error) bool {
	switch {
	case strings.HasPrefix(name, "system.posix_acl"):
		return false
	case name == "security.capability":
		return o.c.SquashUID != nil && errors.Is(err, syscall.EPERM)
	}
	lost := errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EPERM) && !strings.HasPrefix(name, "user.")
	if lost {
		o.log.Debugf("copy-up loses the attribute %s: %v", name, err)
	}
	return lost
}

// canMark tells whether a file of the type can have the overlay's attributes:
// user.* exists on regular files and directories only.
func (o *Overlay) canMark(typ uint32) bool {
	return o.work.prefix == trustedPrefix || o.work.prefix == userPrefix && (typ == unix.S_IFREG || typ == unix.S_IFDIR)
}

// publish carries out link, which puts a staged copy of n into its directory,
// with the locks that takes; and then n is upper. When n has lost its last
// name meanwhile, orphan is called instead. The parent's times stay.
func (o *Overlay) publish(n *node, link func(d *safefs.Dir, name string) error, orphan func() error) error {
	o.renameMu.RLock()
	defer o.renameMu.RUnlock()
	for {
		l := o.homeOf(n)
		if l.dir == nil {
			return orphan()
		}
		if done, err := o.publishAt(n, l, link); done {
			return err
		}
	}
}

// errMoved says that a file has come to have its name in a directory that is not
// copied up.
var errMoved = errors.New("the file has another name now")

// publishAt is publish unless n's home is not l any more.
func (o *Overlay) publishAt(n *node, l link, link func(d *safefs.Dir, name string) error) (done bool, err error) {
	l.dir.dir.mu.Lock()
	defer l.dir.dir.mu.Unlock()
	if l != o.homeOf(n) {
		return false, nil
	}
	if l.dir.upper() == nil {
		return true, errMoved
	}
	return true, o.publishLocked(l, link)
}

func (o *Overlay) publishLocked(l link, link func(d *safefs.Dir, name string) error) error {
	l.dir.upper().untouched.Store(false)
	return l.dir.upper().with(func(d *safefs.Dir) error {
		self := d.Self()
		before, err := self.Stat()
		if err != nil {
			return err
		}
		return l.dir.dir.quietly(self, &before, func() error {
			if err := o.impureLocked(l.dir); err != nil {
				return err
			}
			if err := o.work.loans.during(self, func() error { return link(d, l.name) }); err != nil {
				return err
			}
			o.quota.settleDir(d)
			if err := self.Utimens(before.Atime, before.Mtime); err != nil { // the copy is in its place
				o.log.Warnf("a directory in which %q was copied up keeps the times of that: %v", l.name, err)
			}
			return nil
		})
	})
}

// impureLocked marks dir as one whose children's numbers are not their own.
// Its lock is held for writing.
func (o *Overlay) impureLocked(dir *node) error {
	if dir.dir.impure.Load() || o.work.prefix == "" {
		dir.dir.impure.Store(true)
		return nil
	}
	err := dir.upper().with(func(d *safefs.Dir) error {
		self := d.Self()
		return o.work.loans.during(self, func() error { return self.Setxattr(o.work.prefix+"impure", []byte("y"), 0) })
	})
	if err != nil && !o.mayLose("", err) {
		return err
	}
	dir.dir.impure.Store(true)
	return nil
}

// copyDir copies a directory up, without what is in it.
func (o *Overlay) copyDir(n *node, p *copyPlan) error {
	name := o.work.name()
	if err := o.work.stage.Mkdir(name, 0o700); err != nil {
		return err
	}
	a := access{dir: o.work.stage, name: name}
	st, err := a.stat()
	if err == nil {
		err = o.dress(a, p, &st)
	}
	if err == nil {
		err = o.publish(n, func(d *safefs.Dir, to string) error {
			l := o.homeOf(n)
			if l.dir == nil {
				return syscall.ENOENT
			}
			if err := o.work.moveDir(o.work.stage, name, d, to, 0); err != nil {
				return err
			}
			o.dirIsUp(n, p, l, d, &st)
			return nil
		}, func() error { return syscall.ENOENT })
	}
	if err != nil {
		return errors.Join(err, removeTree(o.work.stage, name))
	}
	return nil
}

// dirIsUp puts the upper place l in d, where the directory made as st is now, on top of
// n's stack.
func (o *Overlay) dirIsUp(n *node, p *copyPlan, l link, d *safefs.Dir, st *safefs.Stat) {
	top := &place{tree: o.tree, layer: o.tree.layers[0], up: l.dir.upper(), name: l.name, dev: st.Dev, ino: st.Ino}
	top.untouched.Store(true)
	if now, err := d.Stat(l.name); err == nil {
		n.dir.quiet.Store(&quietChange{shown: p.st.Ctime, real: now.Ctime})
	}
	// Readers take the stack at once; those who would change it wait for
	// copying, so that there is no one to exclude.
	n.setStack(append([]*place{top}, n.stack()...))
	n.set(flagUp)
}

// copySpecial copies up a symlink, device, FIFO or socket.
func (o *Overlay) copySpecial(n *node, p *copyPlan) error {
	name := o.work.name()
	var err error
	if n.typ == unix.S_IFLNK {
		err = o.work.stage.Symlink(p.target, name)
	} else if p.standIn {
		err = o.work.stage.Mknod(name, unix.S_IFREG|0o600, 0)
	} else {
		err = o.work.stage.Mknod(name, p.st.Mode&^0o7000, p.st.Rdev)
	}
	if err != nil {
		return err
	}
	a := access{dir: o.work.stage, name: name}
	st, err := a.stat()
	if err == nil {
		err = o.dress(a, p, &st)
	}
	if err == nil && p.index != "" {
		err = a.setxattr(o.work.prefix+"nlink", formatLinks('U', int(p.st.Nlink)-1), 0)
	}
	if err == nil {
		err = o.publish(n, func(d *safefs.Dir, to string) error {
			if p.index != "" {
				if err := o.work.stage.Link(name, o.work.index, p.index); err != nil {
					return err
				}
			}
			if err := o.work.stage.Rename(name, d, to, 0); err != nil {
				return errors.Join(err, o.unindex(p))
			}
			o.copied(n, p, &st)
			o.linksChanged(n, 0)
			return nil
		}, func() error { return o.keepStaged(n, name) })
	}
	if err != nil {
		return errors.Join(err, removeTree(o.work.stage, name))
	}
	return nil
}

// keepStaged makes a staged file n's, which has no name any more.
func (o *Overlay) keepStaged(n *node, name string) error {
	if o.orphans.Load() >= o.maxOrphans {
		n.rare().kept.Store(&name)
		n.set(flagUp)
		return nil
	}
	r, err := o.work.stage.Ref(name)
	if err != nil {
		return err
	}
	o.holdOrphan(n, r)
	n.set(flagUp)
	return o.work.stage.Unlink(name)
}
