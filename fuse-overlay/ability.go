package fuseoverlay

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
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
		if f&p.format != 0 && w.prefix == "" && a.can(w.keeps(name, p.prefix+"origin")) {
			w.prefix = p.prefix
		}
	}
	if err := w.probeNames(&a, name, f, files); err != nil {
		return err
	}
	if err := w.probeRights(&a); err != nil {
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

// probeRights finds out whether a file may be opened whose mode forbids it.
func (w *work) probeRights(a *abilities) error {
	name := w.name()
	if err := w.stage.Mknod(name, unix.S_IFREG, 0); err != nil {
		return err
	}
	fd, err := w.stage.OpenFD(name, unix.O_RDWR, 0)
	switch {
	case a.can(err):
		return unix.Close(fd)
	case errors.Is(err, syscall.EACCES):
		w.loans = newLending()
	}
	return nil
}

// probeNames finds out about whiteouts and renameat2; name is a file to try with.
func (w *work) probeNames(a *abilities, name string, f Format, files bool) error {
	wh := w.name()
	err := error(syscall.EPERM)
	if !files {
		err = w.makes(wh, unix.S_IFCHR)
	}
	if !a.can(err) {
		if err := w.probeFileWhiteouts(a, name, f, err); err != nil {
			return err
		}
		wh = w.name() // a second file to try with
		if err := w.stage.Mknod(wh, unix.S_IFREG|0o600, 0); err != nil {
			return err
		}
	}
	w.swap = a.can(w.stage.Rename(name, w.stage, wh, unix.RENAME_EXCHANGE))
	if !w.dotWh && !w.attrWh {
		w.cover = a.can(w.stage.Rename(name, w.stage, w.name(), unix.RENAME_WHITEOUT))
	}
	return nil
}

// probeFileWhiteouts finds out which files whiteouts can be, where no device
// can, for the reason why; name is a file to try with. `.wh.` names are what
// any reader of image layers knows, but a mount of ours, or of fuse-overlayfs,
// takes none.
func (w *work) probeFileWhiteouts(a *abilities, name string, f Format, why error) error {
	dot := error(syscall.EPERM)
	if f&Files != 0 {
		mark := whiteoutPrefix + w.name()
		if dot = w.makes(mark, unix.S_IFREG|0o600); dot == nil {
			dot = w.stage.Unlink(mark) // fuse-overlayfs makes it, and then does not have it
		}
		if w.dotWh = a.can(dot); w.dotWh {
			return nil
		}
	}
	if w.prefix != "" {
		w.attrWh = a.can(w.keeps(name, w.prefix+"whiteout"))
	}
	if w.attrWh || a.err != nil {
		return a.err
	}
	return errno.New(errno.ErrNotSupported, "it cannot hold the marks of removed files, neither as devices 0:0 (%w), nor as .wh. files (%v), nor as attributes: "+
		"put upperdir and workdir on another filesystem (ext4, xfs, btrfs, tmpfs)", why, dot)
}

// keeps sets an attribute of a file in work; it is an error if the file does
// not list it then, as on fuse-overlayfs.
func (w *work) keeps(name, attr string) error {
	if err := w.stage.Setxattr(name, attr, nil, 0); err != nil {
		return err
	}
	names, err := w.stage.Listxattr(name)
	if err == nil && !slices.Contains(names, attr) {
		err = fmt.Errorf("the attribute %s of %s was set and is not there: %w", attr, name, syscall.EOPNOTSUPP)
	}
	return err
}

// makes makes a file in work; it is an error if it is not one of that mode then.
func (w *work) makes(name string, mode uint32) error {
	if err := w.stage.Mknod(name, mode, 0); err != nil {
		return err
	}
	st, err := w.stage.Stat(name)
	if err == nil && st.Type() != mode&unix.S_IFMT {
		err = fmt.Errorf("%s is another kind of file than was made: %w", name, syscall.EOPNOTSUPP)
	}
	return err
}
