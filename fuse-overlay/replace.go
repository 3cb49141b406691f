package fuseoverlay

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// beforeReplace prepares the target for being replaced.
func (o *Overlay) beforeReplace(r *renaming, td *safefs.Dir, trash *string) (err error) {
	if !r.dst.isDir() {
		r.dst.set(flagUnlinked)
	}
	switch {
	case !r.dst.is(flagUp):
		return nil
	case r.dst.isDir():
		if r.held, err = td.Ref(r.newName); err != nil || !r.plan.clear {
			return err
		}
		return o.clearTarget(r, td, trash)
	case o.lastName(r.dst, r.to, r.newName):
		if err := o.keepOrphan(r.dst, td, r.newName); err != nil {
			return err
		}
	}
	r.links = o.changeOf(r.dst, td, r.newName)
	return nil
}

// clearTarget puts an empty directory, otherwise equal, in the place of the
// target, which holds nothing but whiteouts.
func (o *Overlay) clearTarget(r *renaming, td *safefs.Dir, trash *string) error {
	staged := o.work.name()
	if err := o.work.stage.Mkdir(staged, 0o700); err != nil {
		return err
	}
	*trash = staged
	if err := o.markOpaque(o.work.stage, staged); err != nil {
		return err
	}
	if err := o.alike(access{ref: r.held}, access{dir: o.work.stage, name: staged}); err != nil {
		return err
	}
	err := o.work.loans.at(td, r.newName, func() error {
		return o.work.moveDir(o.work.stage, staged, td, r.newName, unix.RENAME_EXCHANGE)
	})
	if err != nil {
		return err
	}
	r.cleared = true
	if o.work.prefix != "" {
		return nil
	}
	sub, err := td.OpenDir(r.newName) // the mark is a file: it would not be empty
	if err != nil {
		return err
	}
	return errors.Join(sub.Unlink(opaqueFile), sub.Close())
}

// alike gives the new directory to all attributes that from has, but for the
// mark of opacity.
func (o *Overlay) alike(from, to access) error {
	st, err := from.stat()
	if err != nil {
		return err
	}
	now, err := to.stat()
	if err != nil {
		return err
	}
	if now.UID != st.UID || now.GID != st.GID {
		if _, err := o.giveTo(int(st.UID), int(st.GID), to.chown); err != nil {
			return err
		}
	}
	names, err := from.listxattr()
	if err != nil && !noXattrs(err) {
		return err
	}
	for _, name := range names {
		if o.work.prefix != "" && name == o.work.prefix+"opaque" {
			continue // from's may say that whiteouts are inside
		}
		v, err := from.getxattr(name)
		if err == nil {
			err = to.setxattr(name, v, 0)
		}
		if err != nil && !noXattrs(err) {
			return err
		}
	}
	return errors.Join(to.chmod(st.Mode&0o7777), to.utimens(st.Atime, st.Mtime))
}

// takeBack undoes what a rename that failed did to its target.
func (o *Overlay) takeBack(r *renaming, td *safefs.Dir, trash string) (err error) {
	if r.cleared {
		err = o.work.loans.at(td, r.newName, func() error {
			return o.work.moveDir(o.work.stage, trash, td, r.newName, unix.RENAME_EXCHANGE)
		})
		if err != nil {
			o.degrade("%q was to be replaced, which failed, and cannot be put back: %v", r.newName, err)
		}
	}
	if r.held != nil {
		err = errors.Join(err, r.held.Close())
	}
	return err
}
