package fuseoverlay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
)

// getxattr returns an attribute of n.
func (o *Overlay) getxattr(n *node, name string) (v []byte, err error) {
	if err := o.xattrName(name, syscall.ENODATA); err != nil {
		return nil, err
	}
	if n.is(flagNaked) {
		return nil, syscall.ENODATA
	}
	if n.is(flagBare) && (name == "security.capability" || name == accessACL) {
		return nil, syscall.ENODATA
	}
	err = o.with(n, func(a access) (err error) {
		if v, err = a.getxattr(o.escape(name)); err != nil {
			return err
		}
		v, err = o.unmapACL(a, name, v)
		return err
	})
	if (name == accessACL || name == defaultACL) && errors.Is(err, syscall.EOPNOTSUPP) {
		// Of a layer without attributes. The kernel takes any other error for
		// one of its own question, may this user do that.
		err = syscall.ENODATA
	}
	return v, err
}

// xattrName refuses the names that are not shown.
func (o *Overlay) xattrName(name string, hidden syscall.Errno) error {
	if o.c.NoXattrs || o.c.NoACL && (name == accessACL || name == defaultACL) {
		return syscall.EOPNOTSUPP
	}
	if o.c.Formats.foreign(name) {
		return fmt.Errorf("attribute %s: %w", name, hidden)
	}
	return nil
}

func (o *Overlay) escape(name string) string {
	if !strings.Contains(name, ".overlay.") {
		return name
	}
	return o.c.Formats.escape(name)
}

// listxattr lists the attributes that n shows; those of trusted.* to root.
func (o *Overlay) listxattr(n *node, root bool) (shown []string, err error) {
	if o.c.NoXattrs {
		return nil, syscall.EOPNOTSUPP
	}
	if n.is(flagNaked) {
		return nil, nil
	}
	err = o.with(n, func(a access) error {
		names, err := a.listxattr()
		for _, name := range names {
			name, ok := o.c.Formats.unescape(name)
			if !ok || !root && strings.HasPrefix(name, "trusted.") || o.xattrName(name, syscall.ENODATA) != nil {
				continue
			}
			shown = append(shown, name)
		}
		return err
	})
	return shown, err
}

// setxattr sets an attribute.
func (o *Overlay) setxattr(ctx context.Context, n *node, name string, value []byte, flags int) error {
	if err := o.quota.room(valueRoom(value), 0); err != nil {
		return err
	}
	if perm, ok := o.onlyMode(n, name, value, flags); ok {
		return o.permit(n, perm)
	}
	err := o.changeXattr(ctx, n, name, func(a access) error { return a.setxattr(o.escape(name), value, flags) })
	if err == nil && name == accessACL {
		o.takesACLs.Store(true)
	}
	return err
}

// onlyMode tells whether an attribute would change nothing of n but its mode, and to what:
// an ACL of three entries, which `cp -p` sets for each file that has none, of a file
// that is known to have none either. On ext4 an ACL costs several times as much as a mode.
func (o *Overlay) onlyMode(n *node, name string, value []byte, flags int) (perm uint32, ok bool) {
	if name != accessACL || flags != 0 || !o.takesACLs.Load() || o.aside != "" || !n.is(flagUp) || !n.is(flagBare) {
		return 0, false
	}
	return idmap.PlainACL(value)
}

// permit sets the permissions of an upper file, and leaves its set-ID bits.
func (o *Overlay) permit(n *node, perm uint32) error {
	if err := o.mayWrite(); err != nil {
		return err
	}
	return o.reach(n, func(a access) error {
		st, err := o.tree.loans.seen(a.stat)
		if err != nil {
			return err
		}
		return o.tree.loans.chmod(a, st.Mode&0o7000|perm)
	})
}

// removexattr removes an attribute. One that is not there copies nothing up.
func (o *Overlay) removexattr(ctx context.Context, n *node, name string) error {
	if err := o.mayWrite(); err != nil {
		return err
	}
	if !n.is(flagUp) {
		if _, err := o.getxattr(n, name); err != nil {
			return err
		}
	}
	return o.changeXattr(ctx, n, name, func(a access) error { return a.removexattr(o.escape(name)) })
}

func (o *Overlay) changeXattr(ctx context.Context, n *node, name string, do func(a access) error) error {
	if err := o.mayWrite(); err != nil {
		return err
	}
	if err := o.xattrName(name, syscall.EPERM); err != nil {
		return err
	}
	if len(o.escape(name)) > maxName {
		return errno.New(errno.ErrBadValue, "the attribute name %.40s… is too long to be kept in a layer", name)
	}
	if err := o.metaUp(ctx, n); err != nil {
		return err
	}
	n.clear(flagBare | flagNaked)
	if err := o.with(n, do); err != nil {
		return err
	}
	n.loud()
	o.settleNode(n)
	if n.isDir() && name == defaultACL {
		n.dir.mu.Lock()
		n.dir.acl = aclUnknown
		n.dir.mu.Unlock()
	}
	return nil
}
