package layertar

import (
	"errors"
	"path"
	"syscall"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// whiteout hides a name of the layers below. What this same stream has made
// under that name stays (a whiteout hides lower layers only); what was there
// before it goes.
func (a *applier) whiteout(d *safefs.Dir, o *op) error {
	full := path.Join(o.dir, o.target)
	if made, err := a.isMade(d, o.target, full); err != nil {
		return err
	} else if made {
		return a.hideBelow(d, o.target, full)
	}
	if err := a.remove(d, o.target); err != nil {
		return err
	}
	switch a.o.Style {
	case whiteout.Apply:
		return nil
	case whiteout.Files:
		a.marked = true
		return a.emptyFile(d, whiteout.Name(o.target))
	case whiteout.Trusted, whiteout.User:
	}
	err := d.Mknod(o.target, unix.S_IFCHR, 0)
	if errors.Is(err, syscall.EPERM) && a.o.Style == whiteout.User {
		return a.xattrWhiteout(d, o.target)
	}
	return err
}

// unhide is for what was made beside a whiteout of the same name, in the style
// Files, where both would be there and the mark would count: it goes, and a
// directory is opaque in its place.
func (a *applier) unhide(h *header, o *op, full string) error {
	if a.o.Style != whiteout.Files || !a.marked || o.kind == opRoot {
		return nil
	}
	d, err := a.parent(h, o.dir, false)
	if err != nil {
		return err
	}
	return a.unhideIn(d.Dir, o.base, full, o.kind == opDir)
}

func (a *applier) unhideIn(d *safefs.Dir, name, full string, isDir bool) error {
	err := d.Unlink(whiteout.Name(name))
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENAMETOOLONG):
		return nil
	case err != nil || !isDir:
		return err
	}
	return a.makeOpaque(d, name, full)
}

// hideBelow is a whiteout of what the stream itself has made: a directory
// becomes opaque, anything else hides what is below anyway.
func (a *applier) hideBelow(d *safefs.Dir, name, full string) error {
	st, err := d.Stat(name)
	if err != nil || !st.IsDir() {
		return err
	}
	return a.makeOpaque(d, name, full)
}

// xattrWhiteout is the kernel's form for those who may not mknod: an empty
// file with the attribute `whiteout`, in a directory whose `opaque` is "x".
func (a *applier) xattrWhiteout(d *safefs.Dir, name string) error {
	p := a.o.Style.XattrPrefix()
	if err := a.emptyFile(d, name); err != nil {
		return err
	}
	if err := d.Setxattr(name, p+"whiteout", []byte("y"), 0); err != nil {
		return err
	}
	err := d.Setxattr(".", p+"opaque", []byte("x"), unix.XATTR_CREATE)
	if errors.Is(err, syscall.EEXIST) {
		return nil
	}
	return err
}

func (a *applier) emptyFile(d *safefs.Dir, name string) error {
	f, err := d.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// opaque hides all that the layers below have in the mark's directory.
func (a *applier) opaque(h *header, o *op) error {
	if o.dir == "" {
		return a.makeOpaque(a.root.Dir, ".", "")
	}
	up, base := splitName(o.dir)
	d, err := a.parent(h, up, false)
	if err != nil {
		return err
	}
	return a.makeOpaque(d.Dir, base, o.dir)
}

// makeOpaque removes from directory name what this stream has not made, and
// marks it.
func (a *applier) makeOpaque(d *safefs.Dir, name, full string) (err error) {
	sub, err := d.OpenDir(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sub.Close()) }()
	if done, err := a.isPruned(full, true); err != nil {
		return err
	} else if !done {
		if err := a.prune(sub, full); err != nil {
			return err
		}
		if err := a.pruned.Add(a.hash(full)); err != nil {
			return err
		}
	}
	return a.markOpaque(d, name)
}

func (a *applier) markOpaque(d *safefs.Dir, name string) (err error) {
	switch a.o.Style {
	case whiteout.Apply:
		return nil
	case whiteout.Trusted, whiteout.User:
		return d.Setxattr(name, a.o.Style.XattrPrefix()+"opaque", []byte("y"), 0)
	case whiteout.Files:
	}
	sub, err := d.OpenDir(name)
	if err != nil {
		return err
	}
	return errors.Join(a.emptyFile(sub, whiteout.OpaqueName), sub.Close())
}

// isPruned tells whether what is below the path was pruned before, itself or,
// with above, a directory that it is in: what is there is the stream's own since.
func (a *applier) isPruned(full string, above bool) (bool, error) {
	for {
		if ok, err := a.pruned.Has(a.hash(full)); ok || err != nil {
			return ok, err
		}
		if !above || full == "" {
			return false, nil
		}
		full, _ = splitName(full)
	}
}

// prune removes everything below d (the path full) that this stream has not
// made.
func (a *applier) prune(d *safefs.Dir, full string) error {
	names, err := children(d)
	if err != nil {
		return err
	}
	for _, e := range names {
		p := path.Join(full, e.Name)
		made, err := a.isMade(d, e.Name, p)
		if err != nil {
			return err
		}
		if !made {
			if err := a.remove(d, e.Name); err != nil {
				return err
			}
			continue
		}
		st, err := d.Stat(e.Name)
		if err != nil {
			return err
		}
		done, err := a.isPruned(p, false)
		if err != nil {
			return err
		}
		if !st.IsDir() || done {
			continue
		}
		sub, err := d.OpenDir(e.Name)
		if err != nil {
			return err
		}
		if err := errors.Join(a.prune(sub, p), sub.Close()); err != nil {
			return err
		}
	}
	return nil
}

func children(d *safefs.Dir) ([]safefs.Entry, error) {
	var out []safefs.Entry
	err := d.ReadDir(func(e safefs.Entry) error {
		out = append(out, e)
		return nil
	})
	return out, err
}

// remove deletes name, a directory with all that is in it; nothing there is
// no error. Cached directories are let go of when one may be gone.
func (a *applier) remove(d *safefs.Dir, name string) error {
	st, err := d.Stat(name)
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	clear(a.links)
	if !st.IsDir() {
		return d.Unlink(name)
	}
	if err := removeTree(d, name); err != nil {
		return err
	}
	a.stale = true
	return nil
}

func removeTree(d *safefs.Dir, name string) error {
	sub, err := d.OpenDir(name)
	if err != nil {
		return err
	}
	names, err := children(sub)
	for _, e := range names {
		if err != nil {
			break
		}
		var st safefs.Stat
		if st, err = sub.Stat(e.Name); err != nil {
			break
		}
		if st.IsDir() {
			err = removeTree(sub, e.Name)
		} else {
			err = sub.Unlink(e.Name)
		}
	}
	if err := errors.Join(err, sub.Close()); err != nil {
		return err
	}
	return d.Rmdir(name)
}
