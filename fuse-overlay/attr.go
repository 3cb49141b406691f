package fuseoverlay

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/vnode"
)

// Attr implements vnode.Node. A merged directory has one link, as in the
// kernel: its subdirectories are not counted.
func (d *dirNode) Attr(context.Context) (vnode.Attr, error) {
	at := d.at()
	a, err := d.attrAt(at.spot, d == d.tree.root)
	if len(at.stack) > 1 {
		a.Nlink = 1
	}
	return a, err
}

// Attr implements vnode.Node. A metadata-only copy shows its own size, and the
// blocks of its data.
func (l *leaf) Attr(context.Context) (vnode.Attr, error) {
	at := l.at()
	a, err := l.attrAt(at.spot, false)
	if err != nil || at.data == nil {
		return a, err
	}
	err = at.data.place.with(func(dir *safefs.Dir) error {
		st, err := dir.Stat(at.data.name)
		a.Blocks = st.Blocks
		return err
	})
	return a, err
}

// attrAt returns the attributes of the file at s, which must still be b's.
func (b *base) attrAt(s spot, anyInode bool) (vnode.Attr, error) {
	var st safefs.Stat
	if seen := b.seen.Swap(nil); seen != nil {
		st = *seen
	} else if err := s.place.with(func(dir *safefs.Dir) (err error) {
		st, err = dir.Stat(s.name)
		return err
	}); err != nil {
		if absent(err) {
			err = s.stale()
		}
		return vnode.Attr{}, err
	}
	if !anyInode && s.place.number(&st) != b.ino {
		return vnode.Attr{}, s.stale()
	}
	a := attrOf(&st, b.ino)
	if b.tree.formats&Override != 0 {
		return a, b.applyOverride(s, &a)
	}
	return a, nil
}

func attrOf(st *safefs.Stat, ino uint64) vnode.Attr {
	return vnode.Attr{
		Ino: ino, Mode: st.Mode, Nlink: st.Nlink, UID: st.UID, GID: st.GID,
		Size: st.Size, Blocks: st.Blocks, Rdev: st.Rdev,
		Atime: st.Atime, Mtime: st.Mtime, Ctime: st.Ctime, Btime: st.Btime,
	}
}

// applyOverride lets an override_stat attribute speak, which only regular
// files and directories can have. One that cannot be read means nothing.
func (b *base) applyOverride(s spot, a *vnode.Attr) error {
	if t := a.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
		return nil
	}
	o, ok, err := s.override()
	if ok {
		a.UID, a.GID, a.Mode = o.uid, o.gid, a.Mode&unix.S_IFMT|o.perm
	}
	return err
}

// override reads the file's override_stat attribute.
func (s spot) override() (o override, ok bool, err error) {
	err = s.place.with(func(dir *safefs.Dir) error {
		for _, name := range overrideNames() {
			v, err := dir.Getxattr(s.name, name)
			if noXattrs(err) {
				continue
			}
			if err != nil {
				return err
			}
			if o, ok = parseOverride(string(v)); ok {
				return nil
			}
		}
		return nil
	})
	return o, ok, err
}
