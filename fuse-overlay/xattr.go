package fuseoverlay

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/vnode"
)

// The overlay's own attributes are hidden. An attribute of a file of the tree
// that has such a name (an overlay inside this one) is kept in the layers with
// the last part of the prefix doubled:
//
//	seen trusted.overlay.X       kept trusted.overlay.overlay.X
//
// which is the kernel's rule. For every name n of the tree,
// unescape(escape(n)) == n; escape(n) is never private, and every name of a
// layer is either private or unescapes to a name that escapes to it.

// owned returns the prefixes that the formats take for themselves.
func (f Format) owned() []string {
	var own []string
	if f&Trusted != 0 {
		own = append(own, trustedPrefix)
	}
	if f&User != 0 {
		own = append(own, userPrefix)
	}
	return own
}

const again = "overlay."

// escape returns the name in the layers of the attribute that the tree calls
// name.
func (f Format) escape(name string) string {
	for _, p := range f.owned() {
		if rest, ok := strings.CutPrefix(name, p); ok {
			return p + again + rest
		}
	}
	return name
}

// unescape returns the name in the tree of the attribute that a layer calls
// name, and false when it is private.
func (f Format) unescape(name string) (string, bool) {
	for _, p := range f.owned() {
		if rest, ok := strings.CutPrefix(name, p); ok {
			rest, ok = strings.CutPrefix(rest, again)
			return p + rest, ok
		}
	}
	return name, !f.foreign(name)
}

// foreign tells whether name belongs to a format that escapes nothing.
func (f Format) foreign(name string) bool {
	return f&Fuse != 0 && strings.HasPrefix(name, fusePrefix) ||
		f&Override != 0 && slices.Contains(overrideNames(), name)
}

// Getxattr implements vnode.Xattrer.
func (d *dirNode) Getxattr(_ context.Context, name string) ([]byte, error) {
	if name == LayerXattr {
		return []byte(d.at().stack[0].layer.Name), nil
	}
	return d.tree.getxattr(d.at().spot, name)
}

// Listxattr implements vnode.Xattrer.
func (d *dirNode) Listxattr(ctx context.Context) ([]string, error) {
	return d.tree.listxattr(ctx, d.at().spot)
}

// Getxattr implements vnode.Xattrer.
func (f *fileNode) Getxattr(ctx context.Context, name string) ([]byte, error) {
	if name == LayerXattr {
		return []byte(f.at().spot.place.layer.Name), nil
	}
	return f.leaf.Getxattr(ctx, name)
}

// Getxattr implements vnode.Xattrer.
func (l *leaf) Getxattr(_ context.Context, name string) ([]byte, error) {
	return l.tree.getxattr(l.at().spot, name)
}

// Listxattr implements vnode.Xattrer.
func (l *leaf) Listxattr(ctx context.Context) ([]string, error) {
	return l.tree.listxattr(ctx, l.at().spot)
}

func (t *Tree) getxattr(s spot, name string) (value []byte, err error) {
	if t.formats.foreign(name) {
		return nil, fmt.Errorf("getxattr %s: %w", name, syscall.ENODATA)
	}
	err = s.place.with(func(dir *safefs.Dir) (err error) {
		value, err = dir.Getxattr(s.name, t.formats.escape(name))
		return err
	})
	return value, err
}

// listxattr lists what the tree shows; trusted.* to root only, as the kernel
// does (a FUSE server is asked by it on everyone's behalf).
func (t *Tree) listxattr(ctx context.Context, s spot) ([]string, error) {
	caller, known := vnode.CallerOf(ctx)
	var shown []string
	err := s.place.with(func(dir *safefs.Dir) error {
		names, err := dir.Listxattr(s.name)
		for _, n := range names {
			if known && caller.UID != 0 && strings.HasPrefix(n, "trusted.") {
				continue
			}
			if n, ok := t.formats.unescape(n); ok {
				shown = append(shown, n)
			}
		}
		return err
	})
	return shown, err
}
