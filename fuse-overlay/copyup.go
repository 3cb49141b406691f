package fuseoverlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

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
	if n.up.Load() && (size == metaOnly || !n.lacksData()) {
		return nil
	}
	if err := o.mayWrite(); err != nil {
		return err
	}
	for {
		n.copyMu.Lock()
		if n.up.Load() && (size == metaOnly || n.data == nil) {
			n.copyMu.Unlock()
			return nil
		}
		if wait := n.copying; wait != nil {
			n.copyMu.Unlock()
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		done := make(chan struct{})
		n.copying = done
		n.copyMu.Unlock()
		err := o.copyUpAlone(ctx, n, size)
		n.copyMu.Lock()
		n.copying = nil
		n.copyMu.Unlock()
		close(done)
		return err
	}
}

// lacksData tells whether n is upper as a copy of metadata only.
func (n *node) lacksData() bool {
	if n.typ != unix.S_IFREG {
		return false
	}
	n.copyMu.Lock()
	defer n.copyMu.Unlock()
	return n.data != nil
}

// metaUp is copyUp for changes of attributes: a metadata-only copy suffices.
func (o *Overlay) metaUp(ctx context.Context, n *node) error {
	if n.up.Load() {
		return o.mayWrite()
	}
	return o.copyUp(ctx, n, metaOnly)
}

// copyUpAlone does it, being the only one to.
func (o *Overlay) copyUpAlone(ctx context.Context, n *node, size int64) error {
	if n.up.Load() {
		return o.completeData(ctx, n, size)
	}
	if err := o.parentsUp(ctx, n); err != nil {
		return err
	}
	p, err := o.planCopy(n, size)
	if err == nil {
		err = o.copyRoom(ctx, p)
	}
	if err != nil {
		return err
	}
	switch {
	case n.isDir():
		err = o.copyDir(n, p)
	case n.typ != unix.S_IFREG:
		err = o.copySpecial(n, p)
	default:
		err = o.copyRegular(ctx, n, p)
	}
	if err == nil {
		o.copyUps.Add(1)
		o.settleNode(n)
	}
	return err
}

// parentsUp copies up the directories above n, top first.
func (o *Overlay) parentsUp(ctx context.Context, n *node) error {
	var chain []*node
	o.treeMu.Lock()
	for d := n.home.dir; d != nil && !d.up.Load(); d = d.home.dir {
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
	from    spot // attributes
	st      safefs.Stat
	size    int64 // how much data
	target  string
	xattrs  []xattr
	origin  []byte
	index   string // name in the index of a hard-linked file
	aside   *override
	meta    bool // none of the data
	standIn bool // a regular file that stands for a device
}

type xattr struct {
	name  string
	value []byte
}

func (o *Overlay) planCopy(n *node, size int64) (*copyPlan, error) {
	p := &copyPlan{from: n.lower}
	if n.isDir() {
		p.from = n.stack()[0].spot()
	}
	if err := p.from.with(func(a access) error { return o.look(a, p) }); err != nil {
		return nil, fmt.Errorf("plan the copy of %q: %w", p.from.name, err)
	}
	p.aside = o.asideOf(n, &p.st)
	p.standIn = p.aside.standsIn(p.st.Type())
	if p.st.Type() != n.typ && !p.standIn {
		return nil, p.from.stale()
	}
	if p.size = int64(p.st.Size); size >= 0 {
		p.size = min(size, p.size)
	}
	if o.work.prefix == "" {
		return p, nil
	}
	o.planMarks(n, p, size)
	return p, nil
}

// planMarks decides on what the copy says of where it comes from.
func (o *Overlay) planMarks(n *node, p *copyPlan, size int64) {
	p.origin = o.originOf(p.from, p.st.Dev)
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

// look reads what there is to copy but data.
func (o *Overlay) look(a access, p *copyPlan) (err error) {
	if p.st, err = a.stat(); err != nil {
		return err
	}
	if p.st.Type() == unix.S_IFLNK {
		if p.target, err = a.readlink(); err != nil {
			return err
		}
	}
	p.xattrs, err = o.copiedXattrs(a)
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
		if err != nil {
			return nil, err
		}
		out = append(out, xattr{name, v})
	}
	return out, nil
}

// dress gives a staged file owner, mode, attributes and, last, times.
func (o *Overlay) dress(a access, p *copyPlan) error {
	if err := o.copyOwner(a, p); err != nil {
		return err
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
	return a.utimens(p.st.Atime, p.st.Mtime)
}

// owner sets owner and mode where they are not right.
func (p *copyPlan) owner(a access) error {
	st, err := a.stat()
	if err != nil {
		return err
	}
	if st.UID != p.st.UID || st.GID != p.st.GID {
		if err := a.chown(int(p.st.UID), int(p.st.GID)); err != nil {
			return err
		}
		if st.Mode&0o6000 != 0 {
			st.Mode = ^uint32(0) // the kernel may have cleared them
		}
	}
	if st.Mode == p.st.Mode || p.st.Type() == unix.S_IFLNK {
		return nil
	}
	return a.chmod(p.st.Mode & 0o7777)
}

// mayLose tells whether an attribute that cannot be set is no reason to fail:
// the upper's filesystem does not know its kind, or we may not set it. ACLs and
// capabilities are never lost.
func (o *Overlay) mayLose(name string, err error) bool {
	if strings.HasPrefix(name, "system.posix_acl") || name == "security.capability" {
		return false
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
		l.dir.dir.mu.Lock()
		if l != o.homeOf(n) {
			l.dir.dir.mu.Unlock()
			continue
		}
		err := o.publishLocked(l, link)
		l.dir.dir.mu.Unlock()
		return err
	}
}

func (o *Overlay) publishLocked(l link, link func(d *safefs.Dir, name string) error) error {
	if err := o.impureLocked(l.dir); err != nil {
		return err
	}
	return l.dir.upper().with(func(d *safefs.Dir) error {
		before, err := d.Stat(".")
		if err != nil {
			return err
		}
		if err := link(d, l.name); err != nil {
			return err
		}
		return d.Utimens(".", before.Atime, before.Mtime)
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
		return d.Setxattr(".", o.work.prefix+"impure", []byte("y"), 0)
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
	err := o.dress(access{dir: o.work.stage, name: name}, p)
	if err == nil {
		err = o.publish(n, func(d *safefs.Dir, to string) error {
			if err := o.work.stage.Rename(name, d, to, 0); err != nil {
				return err
			}
			return o.dirIsUp(n, p, d, to)
		}, func() error { return syscall.ENOENT })
	}
	if err != nil {
		return errors.Join(err, removeTree(o.work.stage, name))
	}
	return nil
}

// dirIsUp puts the upper place, which is to in d, on top of n's stack.
func (o *Overlay) dirIsUp(n *node, p *copyPlan, d *safefs.Dir, to string) error {
	st, err := d.Stat(to)
	if err != nil {
		return err
	}
	l := o.homeOf(n)
	if l.dir == nil {
		return syscall.ENOENT
	}
	top := &place{tree: o.tree, layer: o.tree.layers[0], up: l.dir.upper(), name: to, dev: st.Dev, ino: st.Ino}
	// Readers take the stack at once; those who would change it wait for
	// copying, so that there is no one to exclude.
	n.setStack(append([]*place{top}, n.stack()...))
	n.up.Store(true)
	return nil
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
	err = o.dress(a, p)
	if err == nil && p.index != "" {
		err = a.setxattr(o.work.prefix+"nlink", formatLinks('U', int(p.st.Nlink)-2), 0)
	}
	if err == nil {
		err = o.publish(n, func(d *safefs.Dir, to string) error {
			st, err := a.stat()
			if err == nil && p.index != "" {
				err = o.work.stage.Link(name, o.work.index, p.index)
			}
			if err != nil {
				return err
			}
			if err := o.work.stage.Rename(name, d, to, 0); err != nil {
				return errors.Join(err, o.unindex(p))
			}
			o.copied(n, p, &st)
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
	r, err := o.work.stage.Ref(name)
	if err != nil {
		return err
	}
	n.orphan.Store(r)
	n.up.Store(true)
	return o.work.stage.Unlink(name)
}

// copyRegular copies a regular file up.
func (o *Overlay) copyRegular(ctx context.Context, n *node, p *copyPlan) (err error) {
	f, name, err := o.stageFile()
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if name != "" {
			err = errors.Join(err, removeTree(o.work.stage, name))
		}
	}()
	r, err := safefs.RefOf(f)
	if err != nil {
		return err
	}
	kept := false
	defer func() {
		if !kept {
			err = errors.Join(err, r.Close())
		}
	}()
	if p.meta {
		err = errors.Join(f.Truncate(p.size), r.Setxattr(o.work.prefix+"metacopy", nil, 0))
	} else {
		err = o.copyData(ctx, n.lowerData(), f, p.size)
	}
	if err != nil {
		return err
	}
	if err := o.dress(access{ref: r}, p); err != nil {
		return err
	}
	if p.index != "" {
		if err := r.Setxattr(o.work.prefix+"nlink", formatLinks('U', int(p.st.Nlink)-2), 0); err != nil {
			return err
		}
	}
	if p.size > 0 && !p.meta && !o.c.Volatile {
		if err := o.work.settle(f); err != nil {
			return err
		}
	}
	return o.publish(n, func(d *safefs.Dir, to string) error {
		return o.linkCopy(n, p, r, d, to)
	}, func() error {
		kept = true
		n.orphan.Store(r)
		o.becomeUpper(n, p)
		return nil
	})
}

// linkCopy gives the copy its names.
func (o *Overlay) linkCopy(n *node, p *copyPlan, r *safefs.Ref, d *safefs.Dir, to string) error {
	if p.index != "" {
		if err := r.Link(o.work.index, p.index); err != nil {
			return fmt.Errorf("index of hard links: %w", err)
		}
	}
	if err := r.Link(d, to); err != nil {
		return errors.Join(err, o.unindex(p))
	}
	st, err := r.Stat()
	if err != nil {
		return err
	}
	o.copied(n, p, &st)
	return nil
}

// unindex takes back the index entry of a copy that came to nothing.
func (o *Overlay) unindex(p *copyPlan) error {
	if p.index == "" {
		return nil
	}
	return o.work.index.Unlink(p.index)
}

// copied makes n the file st of the upper, which has its name.
func (o *Overlay) copied(n *node, p *copyPlan, st *safefs.Stat) {
	if p.index != "" {
		o.treeMu.Lock()
		o.addKeyLocked(n, fileID{st.Dev, st.Ino})
		o.treeMu.Unlock()
	}
	o.becomeUpper(n, p)
}

// becomeUpper makes n upper as p says.
func (o *Overlay) becomeUpper(n *node, p *copyPlan) {
	n.copyMu.Lock()
	switch {
	case !p.meta:
		n.data = nil
	case n.data == nil:
		data := n.lower
		n.data = &data
	}
	if p.index != "" {
		n.links.index.Store(&p.index)
		n.links.diff = int(p.st.Nlink) - 2
	}
	if n.naked.Swap(false) {
		n.bare.Store(true) // the upper's filesystem may have given the copy a label
	}
	n.up.Store(true)
	n.copyMu.Unlock()
	o.fds.drop(n)
}

// stageFile makes a file in work: without a name where that can be, else with
// the one returned.
func (o *Overlay) stageFile() (*os.File, string, error) {
	if o.work.unnamed {
		f, err := o.work.stage.OpenTemp(0o600)
		return f, "", err
	}
	name := o.work.name()
	f, err := o.work.stage.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o600)
	return f, name, err
}

// completeData gives a metadata-only copy its data: written in place and
// synced, before the mark that it has none is taken off.
func (o *Overlay) completeData(ctx context.Context, n *node, size int64) (err error) {
	var f *os.File
	err = o.withUpper(n, func(a access) error {
		fd, err := openAccess(a, unix.O_RDWR)
		if err == nil {
			f = os.NewFile(uintptr(fd), "copy")
		}
		return err
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := safefs.StatFile(f)
	if err != nil {
		return err
	}
	want := int64(st.Size)
	if size >= 0 {
		want = min(want, size)
	}
	if err := o.copyData(ctx, n.lowerData(), f, want); err != nil {
		return err
	}
	if !o.c.Volatile {
		if err := o.work.settle(f); err != nil {
			return err
		}
	}
	err = o.withUpper(n, func(a access) error {
		for _, prefix := range []string{trustedPrefix, userPrefix} {
			for _, mark := range []string{"metacopy", "redirect"} {
				if err := a.removexattr(prefix + mark); err != nil && !noXattrs(err) && !errors.Is(err, syscall.EPERM) {
					return err
				}
			}
		}
		return a.utimens(st.Atime, st.Mtime)
	})
	if err == nil {
		o.becomeUpper(n, &copyPlan{})
	}
	return err
}
