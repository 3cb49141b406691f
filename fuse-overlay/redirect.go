package fuseoverlay

import (
	"errors"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
)

// A redirect is the kernel's (its document's chapter "redirect_dir"): on a
// directory that is not called in lower layers what it is called in the upper,
// and so no longer found below by its name. Within one directory it is the name
// there; else the path from the root of the layers below, in which the
// redirects of the directories above are followed already.

// longestRedirect is the kernel's bound (module parameter redirect_max).
const longestRedirect = 256

// mayRedirect tells whether n, which r moves, may get a redirect; true of what
// needs none.
func (o *Overlay) mayRedirect(n *node, r *renaming) bool {
	if !o.c.Redirects || o.work.prefix == "" {
		return false
	}
	if n == nil || !n.isDir() || len(n.below()) == 0 {
		return true
	}
	v, err := o.redirectFor(n, r.from == r.to)
	return err == nil && len(v) <= longestRedirect
}

// redirectFor returns the redirect that n has after a move, within its
// directory or out of it. It is exact with renameMu held.
func (o *Overlay) redirectFor(n *node, sameDir bool) (string, error) {
	own, err := redirectOf(n)
	if err != nil || strings.HasPrefix(own, "/") || own != "" && sameDir {
		return own, err
	}
	path := ""
	for d := n; d != o.root; {
		l := o.homeOf(d)
		if l.dir == nil {
			return "", syscall.ENOENT
		}
		name, err := redirectOf(d)
		if err != nil {
			return "", err
		}
		if name == "" {
			name = l.name
		}
		if sameDir {
			return name, nil
		}
		if name[0] == '/' {
			return name + path, nil
		}
		path = "/" + name + path
		d = l.dir
	}
	return path, nil
}

// redirectOf reads the redirect of a directory's upper part, "" for none.
func redirectOf(n *node) (string, error) {
	p := n.upper()
	if p == nil {
		return "", nil
	}
	s := p.spot()
	if s.name == "." {
		return "", nil
	}
	var h hit
	if err := s.place.probe(s.name, &h); err != nil {
		return "", err
	}
	if h.redirect != "" {
		return h.redirect, checkRedirect(h.redirect)
	}
	return "", nil
}

// setRedirect writes the redirect of n, which is name in d and about to be
// moved. What it says is true of n where it is, too.
func (o *Overlay) setRedirect(n *node, r *renaming, d *safefs.Dir, name string) error {
	v, err := o.redirectFor(n, r.from == r.to)
	if err != nil {
		return err
	}
	if len(v) > longestRedirect {
		return errno.New(errno.ErrCrossDevice, "%q lies too deep in lower layers for a redirect: it is to be copied and removed", name)
	}
	return o.work.loans.at(d, name, func() error { return d.Setxattr(name, o.work.prefix+"redirect", []byte(v), 0) })
}

// dropRedirect makes the directory name in d opaque if it has a redirect.
func (o *Overlay) dropRedirect(d *safefs.Dir, name string) error {
	for _, prefix := range o.c.Formats.owned() {
		_, err := d.Getxattr(name, prefix+"redirect")
		switch {
		case err == nil:
			return o.markOpaque(d, name)
		case !noXattrs(err) && !errors.Is(err, syscall.EPERM):
			return err
		}
	}
	return nil
}
