package fuseoverlay

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// whiteout makes a whiteout called name in d: a further link of one that is
// kept for this. One that is a file with an attribute counts in a directory
// that says so (allowWhiteouts).
func (w *work) whiteout(d *safefs.Dir, name string) error {
	err := w.stage.Link(sharedWh, d, name)
	if !errors.Is(err, syscall.EMLINK) && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	w.sharing.Lock() // one makes a new one: who replaced another's would take it from whoever is about to link it
	defer w.sharing.Unlock()
	err = w.stage.Link(sharedWh, d, name)
	if !errors.Is(err, syscall.EMLINK) && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	if err := w.makeShared(); err != nil {
		return err
	}
	return w.stage.Link(sharedWh, d, name)
}

// makeShared makes the whiteout that others are links of, whole, in the place of one
// that can have no more. sharing is held.
func (w *work) makeShared() error {
	name := w.name()
	var err error
	if w.attrWh {
		if err = w.stage.Mknod(name, unix.S_IFREG|0o600, 0); err == nil {
			err = w.stage.Setxattr(name, w.prefix+"whiteout", nil, 0)
		}
	} else {
		err = w.stage.Mknod(name, unix.S_IFCHR, 0)
	}
	if err == nil {
		err = w.stage.Rename(name, w.stage, sharedWh, 0)
	}
	if err != nil {
		return errors.Join(err, removeTree(w.stage, name))
	}
	return nil
}

// allowWhiteouts says of d, where it is needed, that whiteouts may be inside.
func (w *work) allowWhiteouts(d *safefs.Dir) error {
	if !w.attrWh {
		return nil
	}
	mark := w.prefix + "opaque"
	if v, err := d.Getxattr(".", mark); err == nil && string(v) == "x" {
		return nil
	}
	return d.Setxattr(".", mark, []byte("x"), 0)
}

// isWhiteout tells whether name in d, a directory of the upper, is a whiteout;
// st is its attributes.
func (w *work) isWhiteout(d *safefs.Dir, name string, st *safefs.Stat) bool {
	switch {
	case kindOf(st) == whiteout:
		return true
	case w.prefix == "" || kindOf(st) != regular || st.Size != 0:
		return false
	}
	_, err := d.Getxattr(name, w.prefix+"whiteout")
	return err == nil
}

// whiteoutAt tells whether there is a whiteout called name in d, or nothing; EEXIST when
// there is something else.
func (w *work) whiteoutAt(d *safefs.Dir, name string) (bool, error) {
	st, err := d.Stat(name)
	switch {
	case absent(err):
		return false, nil
	case err != nil:
		return false, err
	case !w.isWhiteout(d, name, &st):
		return false, syscall.EEXIST
	}
	return true, nil
}

// inDir tells whether d, a directory of the upper, has a file called name.
func (w *work) inDir(d *safefs.Dir, name string) (bool, error) {
	st, err := d.Stat(name)
	if absent(err) {
		return false, nil
	}
	return err == nil && !w.isWhiteout(d, name, &st), err
}

// dotWhiteout makes a `.wh.` mark.
func (o *Overlay) dotWhiteout(d *safefs.Dir, name string) error {
	if err := markable(name); err != nil {
		return err
	}
	err := d.Mknod(whiteoutPrefix+name, unix.S_IFREG|0o600, 0)
	if errors.Is(err, syscall.EEXIST) {
		return nil
	}
	return err
}

// stageMark makes the mark that is to stay at name in d when the file is moved
// away, and returns what it is called in work, and is to be in d.
func (o *Overlay) stageMark(d *safefs.Dir, name string) (staged, final string, err error) {
	if o.work.attrWh {
		if err := o.work.allowWhiteouts(d); err != nil {
			return "", "", err
		}
		staged = o.work.name()
		return staged, name, o.work.whiteout(o.work.stage, staged)
	}
	if err := markable(name); err != nil {
		return "", "", err
	}
	staged = whiteoutPrefix + o.work.name() // as it will be called, so that no filesystem refuses it later
	return staged, whiteoutPrefix + name, o.work.stage.Mknod(staged, unix.S_IFREG|0o600, 0)
}

// markable tells whether a `.wh.` mark can be made for name.
func markable(name string) error {
	if len(whiteoutPrefix)+len(name) > maxName {
		return fmt.Errorf("remove %q, for whose mark the name is too long: %w", name, syscall.ENAMETOOLONG)
	}
	return nil
}
