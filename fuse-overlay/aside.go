package fuseoverlay

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
)

// Owners and modes kept aside: the files of the upper are the server's, with
// modes that it can work with, and what the tree shows is in an attribute,
// "uid:gid:mode", mode in octal with its type bits; of a device that could not
// be made and for which a regular file stands, ":char-MAJOR-MINOR" or
// ":block-MAJOR-MINOR" follows. fuse-overlayfs 1.10 (xattr_permissions) reads
// and writes the first form in any layer whose root has such an attribute, and
// podman's force_mask the same under the name user.containers.override_stat
// (seen in what they write).
//
// Of the user.* namespace there are attributes on regular files and
// directories only: other files keep the owner that they really have, and a
// change of it that is not permitted is none.

// Aside says where owners and modes are kept.
type Aside uint8

// The attributes that owners and modes can be in.
const (
	// AsideNone: the files have them.
	AsideNone Aside = iota
	// AsideSecurity is security.fuseoverlayfs.override_stat, which needs the
	// machine's root and can be on any file.
	AsideSecurity
	// AsideUser is user.fuseoverlayfs.override_stat, the only one that
	// fuse-overlayfs 1.10 takes in an upper; in one whose root has
	// user.containers.override_stat, that.
	AsideUser
)

// show puts the owner and mode into st.
func (v *override) show(st *safefs.Stat) {
	st.UID, st.GID = v.uid, v.gid
	if v.standsIn(st.Type()) {
		st.Mode, st.Rdev, st.Size, st.Blocks = v.typ, v.rdev, 0, 0
	}
	st.Mode = st.Type() | v.perm
}

// standsIn tells whether a file of type typ stands for a device.
func (v *override) standsIn(typ uint32) bool { return v != nil && v.typ != 0 && typ == unix.S_IFREG }

// value is the attribute's value for a file of the type that is shown.
func (v *override) value(typ uint32) []byte {
	b := fmt.Appendf(nil, "%d:%d:%o", v.uid, v.gid, typ|v.perm)
	switch v.typ {
	case unix.S_IFCHR:
		b = fmt.Appendf(b, ":char-%d-%d", unix.Major(v.rdev), unix.Minor(v.rdev))
	case unix.S_IFBLK:
		b = fmt.Appendf(b, ":block-%d-%d", unix.Major(v.rdev), unix.Minor(v.rdev))
	}
	return b
}

// rootAside chooses the attribute, sees that the upper takes it, and puts it on
// the upper's root, which tells others that the layer has them.
func (o *Overlay) rootAside(root *node) error {
	if o.c.Aside == AsideNone {
		return nil
	}
	return root.stack()[0].with(func(d *safefs.Dir) error {
		a := access{dir: d, name: "."}
		v, found, err := o.readAside(a)
		if err != nil {
			return err
		}
		if root.setAside(v); o.work == nil {
			return nil
		}
		switch names := overrideNames(); {
		case o.c.Aside == AsideSecurity:
			o.aside = names[2]
		case found == names[0]:
			o.aside = names[0]
		default:
			o.aside = names[1]
		}
		st, err := a.stat()
		if err != nil {
			return err
		}
		if v == nil {
			v = &override{uid: st.UID, gid: st.GID, perm: st.Mode & 0o7777}
		}
		if err := a.setxattr(o.aside, v.value(unix.S_IFDIR), 0); err != nil {
			return errno.New(errno.ErrNotSupported, "xattr_permissions: upperdir %s does not take the attribute %s: %w: use xattr_permissions=2 as an ordinary user, and an upperdir on a filesystem with such attributes (not tmpfs before Linux 6.6, not NFS)", o.c.Upper, o.aside, err)
		}
		root.setAside(v)
		return nil
	})
}

// readAside returns what an attribute of the file says, nil when none does, and
// the attribute's name.
func (o *Overlay) readAside(a access) (*override, string, error) {
	names := overrideNames()
	if o.aside != "" { // the one that is written goes first
		names = append([]string{o.aside}, names...)
	}
	for _, name := range names {
		b, err := a.getxattr(name)
		if noXattrs(err) || errors.Is(err, syscall.EPERM) {
			continue // user.* of a symlink
		}
		if err != nil {
			return nil, "", err
		}
		if v, ok := parseOverride(string(b)); ok {
			return &v, name, nil
		}
	}
	return nil, "", nil
}

// findAside completes a new node, whose topmost file is at s, in no table yet.
func (o *Overlay) findAside(n *node, s spot) error {
	if o.c.Formats&Override == 0 {
		return nil
	}
	read := func(a access) error {
		v, _, err := o.readAside(a)
		n.setAside(v)
		if v != nil && v.typ != 0 && n.typ == unix.S_IFREG {
			n.typ = v.typ
		}
		return err
	}
	if idx := n.indexName(); idx != "" {
		return read(access{dir: o.work.index, name: idx})
	}
	return s.with(read)
}

// keepsAside tells whether a file whose real type is typ has an attribute.
func (o *Overlay) keepsAside(typ uint32) bool {
	return o.aside != "" && (o.c.Aside == AsideSecurity || typ == unix.S_IFREG || typ == unix.S_IFDIR)
}

// asideOnly tells whether an error of changing a real owner or mode is none:
// the file cannot have an attribute, and we are not who may change it.
func (o *Overlay) asideOnly(err error) bool {
	return o.aside != "" && errors.Is(err, syscall.EPERM)
}

// mayStandFor tells whether a regular file may stand for one of the type.
func (o *Overlay) mayStandFor(typ uint32) bool {
	return o.aside != "" && (typ == unix.S_IFCHR || typ == unix.S_IFBLK)
}

// modeOf is the mode that a new file really gets.
func (o *Overlay) modeOf(typ, mode uint32) uint32 {
	switch {
	case !o.keepsAside(typ):
		return mode
	case typ == unix.S_IFDIR:
		return 0o755
	}
	return 0o644
}

// ownAside gives a new file its owner and mode, which c then has; st is what it
// really has. c.dir is locked.
func (o *Overlay) ownAside(a access, c *creation, mode uint32, st *safefs.Stat) error {
	v := &override{uid: c.who.uid, gid: c.who.gid, perm: mode & 0o7777}
	parent, err := o.dirShown(c.dir)
	if err != nil {
		return err
	}
	if parent.Mode&unix.S_ISGID != 0 {
		v.gid = parent.GID
		if c.typ == unix.S_IFDIR {
			v.perm |= unix.S_ISGID
		}
	}
	if st.Type() == unix.S_IFREG && c.typ != unix.S_IFREG {
		v.typ, v.rdev = c.typ, c.rdev
	}
	c.aside = v
	return o.writeAside(a, v, c.typ)
}

// dirShown returns the owner and mode that an upper directory shows.
func (o *Overlay) dirShown(dir *node) (st safefs.Stat, err error) {
	err = dir.upper().with(func(d *safefs.Dir) (err error) {
		st, err = d.Stat(".")
		return err
	})
	if v := dir.aside(); v != nil {
		v.show(&st)
	}
	return st, err
}

// writeAside sets the attribute of a file that shows typ. One without write
// permission, of an upper that was begun otherwise, is given it.
func (o *Overlay) writeAside(a access, v *override, typ uint32) error {
	err := a.setxattr(o.aside, v.value(typ), 0)
	if !errors.Is(err, syscall.EACCES) {
		return err
	}
	if err := a.chmod(o.modeOf(typ, 0)); err != nil {
		return err
	}
	return a.setxattr(o.aside, v.value(typ), 0)
}

// setAside makes the changes of owner and mode that n's attribute takes, and
// returns the others. The kernel makes one change of a file at a time.
func (o *Overlay) setAside(n *node, a access, c change) (change, error) {
	if o.aside == "" || c.uid == nil && c.gid == nil && c.mode == nil {
		return c, nil
	}
	st, err := a.stat()
	if err != nil || !o.keepsAside(st.Type()) {
		return c, err
	}
	v := override{uid: st.UID, gid: st.GID, perm: st.Mode & 0o7777}
	if old := n.aside(); old != nil {
		v = *old
	}
	c.alter(&v, n.typ)
	if err := o.writeAside(a, &v, n.typ); err != nil {
		return c, err
	}
	n.setAside(&v)
	c.uid, c.gid, c.mode = nil, nil, nil
	return c, nil
}

// alter makes the changes in v, which a file of type typ shows, as chown(2) and
// chmod(2) do.
func (c change) alter(v *override, typ uint32) {
	if c.uid != nil {
		v.uid = *c.uid
	}
	if c.gid != nil {
		v.gid = *c.gid
	}
	if (c.uid != nil || c.gid != nil) && typ != unix.S_IFDIR { // chown_common in the kernel
		v.perm &^= unix.S_ISUID
		if v.perm&0o010 != 0 {
			v.perm &^= unix.S_ISGID
		}
	}
	if c.mode != nil {
		v.perm = *c.mode & 0o7777
	}
}

// asideOf returns what the attribute of n's copy will say, which n shows from
// now on: it is what it showed. st is the file's own. A copy that is made early
// (early.go) may ask for nothing, and when the file is the upper's already: what
// the node has been given by then stays.
func (o *Overlay) asideOf(n *node, st *safefs.Stat) *override {
	v := n.aside()
	if v != nil || !o.keepsAside(st.Type()) {
		return v
	}
	return n.firstAside(&override{uid: st.UID, gid: st.GID, perm: st.Mode & 0o7777})
}

// copyOwner keeps a copy's owner and mode in an attribute.
func (o *Overlay) copyOwner(a access, p *copyPlan) error {
	typ := p.st.Type()
	if p.aside.typ != 0 {
		typ = p.aside.typ
	}
	if err := a.chmod(o.modeOf(p.st.Type(), 0)); err != nil && p.st.Type() != unix.S_IFLNK {
		return err
	}
	return o.writeAside(a, p.aside, typ)
}
