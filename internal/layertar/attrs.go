package layertar

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// Attributes are set in the order owner, extended attributes, mode, times:
// chown clears set-ID bits and capabilities, an ACL changes the mode's group
// bits, and everything changes the ctime only.

// owner gives name the member's owner, or notes it (OverrideStat), and returns
// the mode that it is to have.
func (a *applier) owner(d *openDir, name string, o *op, what string) (perm uint32, err error) {
	if a.o.OverrideStat {
		if what == "symlink" || o.node == unix.S_IFIFO {
			return o.noted(), nil // the kernel keeps no user.* attribute on them
		}
		perm = o.perm
		if what != "dir" {
			perm = o.noted()
		}
		return perm, d.Setxattr(name, whiteout.OverrideStat, overrideValue(o, what), 0)
	}
	uid, gid, err := a.hostOwner(o)
	if err != nil {
		return 0, err
	}
	if uid == a.us.uid && gid == a.us.gid && d.group == ours && what != "dir" {
		return o.perm, nil // it is just made
	}
	return a.chowned(o.perm, d.Chown(name, uid, gid))
}

func (a *applier) hostOwner(o *op) (int, int, error) {
	uid, gid, err := a.o.Maps.ToHost(o.uid, o.gid)
	if err != nil {
		return 0, 0, errno.New(errno.ErrBadStream, "the owner %d:%d cannot be kept: %w", o.uid, o.gid, err)
	}
	return uid, gid, nil
}

// chowned judges a chown. What stays the extracting user's, since errors are
// ignored, must not run as that user or its group: it gets no set-ID bits.
func (a *applier) chowned(perm uint32, err error) (uint32, error) {
	if err != nil && a.o.IgnoreChownErrors && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL)) {
		return perm &^ 0o6000, nil
	}
	return perm, err
}

// The set-ID bits of a mode.
const (
	setUID = 0o4000
	setGID = 0o2000
)

// noted is the mode of a file whose owner is noted and not given: it runs as
// the extracting user, which is the container's root and nobody else.
func (o *op) noted() uint32 {
	perm := o.perm
	if o.uid != 0 {
		perm &^= setUID
	}
	if o.gid != 0 {
		perm &^= setGID
	}
	return perm
}

// overrideValue is `uid:gid:mode`, with what the file really is where it is
// not what stands there.
func overrideValue(o *op, what string) []byte {
	v := fmt.Sprintf("%d:%d:0%o", o.uid, o.gid, o.perm)
	if strings.Contains(what, "-") {
		v += ":" + what
	}
	return []byte(v)
}

// attrs sets all attributes of something without content.
func (a *applier) attrs(h *header, d *openDir, o *op, what string) error {
	perm, err := a.owner(d, o.base, o, what)
	if err != nil {
		return err
	}
	if d.acls && what != "symlink" {
		if err := unlessMissing(d.Removexattr(o.base, aclAccess)); err != nil {
			return err
		}
	}
	if err := a.xattrs(h, what == "symlink", func(n string, v []byte) error { return d.Setxattr(o.base, n, v, 0) }); err != nil {
		return err
	}
	if what != "symlink" {
		if err := d.Chmod(o.base, perm); err != nil {
			return err
		}
	}
	return d.Utimens(o.base, h.accessed(), h.mtime)
}

// dirAttrs sets a directory's owner and attributes now, its mode and times
// with the others at the end.
func (a *applier) dirAttrs(h *header, d *openDir, name, full string, o *op) error {
	perm, err := a.owner(d, name, o, "dir")
	if err != nil {
		return err
	}
	late := lateDir{dir: full, offset: h.offset, perm: perm, mtime: h.mtime, atime: h.accessed()}
	err = a.xattrs(h, false, func(n string, v []byte) error {
		if n == aclDefault { // what is made in it must not inherit it
			late.acl = v
			return nil
		}
		return d.Setxattr(name, n, v, 0)
	})
	if err != nil {
		return err
	}
	if err := d.Chmod(name, perm|0o700); err != nil {
		return err
	}
	// Its set-group-ID bit and its group decide what is made in it from now on.
	if full == "" {
		a.root.group = notSeen
	} else if at := a.dirs[full]; at != nil {
		at.group = notSeen
	}
	return a.late.push(late)
}

// accessed is the access time: the stream's, else the modification time.
func (h *header) accessed() time.Time {
	if h.atime.IsZero() {
		return h.mtime
	}
	return h.atime
}

// xattrs sets a member's extended attributes. An overlay's bookkeeping is
// never set: it could hide or redirect what is below. Left out as well is
// what this filesystem has not, or this user may not set.
func (a *applier) xattrs(h *header, symlink bool, set func(name string, value []byte) error) error {
	for _, x := range h.xattrs {
		if whiteout.IsPrivate(x.name) || (symlink && strings.HasPrefix(x.name, "user.")) {
			continue
		}
		err := set(x.name, x.value)
		switch {
		case err == nil, errors.Is(err, syscall.EOPNOTSUPP):
		case errors.Is(err, syscall.EPERM) && (a.userns || os.Geteuid() != 0 || strings.HasPrefix(x.name, "user.")):
		case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ERANGE), errors.Is(err, syscall.E2BIG):
			return refuse(h, "the system refuses its extended attribute "+clip(quote(x.name)))
		default:
			return fmt.Errorf("set extended attribute %s: %w", clip(quote(x.name)), err)
		}
	}
	return nil
}
