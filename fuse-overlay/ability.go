package fuseoverlay

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// abilities keeps the first error of a trial that says nothing about what the
// filesystem can do.
type abilities struct{ err error }

// can tells whether a trial that ended with err shows that it can. A filesystem
// that is full, or a process without descriptors, says nothing: taken for a
// no, the upper would be written in another format from then on.
func (a *abilities) can(err error) bool {
	for _, other := range []syscall.Errno{
		unix.ENOSPC, unix.EDQUOT, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.EIO, unix.EROFS, unix.EINTR,
	} {
		if a.err == nil && errors.Is(err, other) {
			a.err = fmt.Errorf("find out what the upper's filesystem can do: %w", err)
		}
	}
	return err == nil
}

// probe finds out what the filesystem can do.
func (w *work) probe(f Format, files bool) error {
	var a abilities
	name := w.name()
	if err := w.stage.Mknod(name, unix.S_IFREG|0o600, 0); err != nil {
		return err
	}
	for _, p := range []struct {
		format Format
		prefix string
	}{{Trusted, trustedPrefix}, {User, userPrefix}} {
		if f&p.format != 0 && w.prefix == "" && a.can(w.stage.Setxattr(name, p.prefix+"origin", nil, 0)) {
			w.prefix = p.prefix
		}
	}
	if err := w.probeNames(&a, name, f, files); err != nil {
		return err
	}
	t, err := w.stage.OpenTemp(0o600)
	if a.can(err) {
		w.unnamed = a.can(t.Link(w.stage, w.name()))
		err = t.Close()
	} else {
		err = nil
	}
	return errors.Join(a.err, err, w.sweepNames())
}

// probeNames finds out about whiteouts and renameat2; name is a file to try with.
func (w *work) probeNames(a *abilities, name string, f Format, files bool) error {
	wh := w.name()
	err := error(syscall.EPERM)
	if !files {
		err = w.stage.Mknod(wh, unix.S_IFCHR, 0)
	}
	w.dotWh = !a.can(err) && f&Files != 0
	if err != nil && !w.dotWh {
		return fmt.Errorf("no whiteout can be made there: %w", err)
	}
	if !w.dotWh {
		w.swap = a.can(w.stage.Rename(name, w.stage, wh, unix.RENAME_EXCHANGE))
		w.cover = a.can(w.stage.Rename(name, w.stage, w.name(), unix.RENAME_WHITEOUT))
		return nil
	}
	if err := w.stage.Mknod(wh, unix.S_IFREG|0o600, 0); err != nil { // a second file to try with
		return err
	}
	w.swap = a.can(w.stage.Rename(name, w.stage, wh, unix.RENAME_EXCHANGE))
	return nil
}
