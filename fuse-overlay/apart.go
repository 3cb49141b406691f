package fuseoverlay

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
)

// family is a directory and all those that it lies in, as files: a bind mount
// gives a directory other paths. The directory is the first.
type family []fileID

// families finds families, asking for each path once.
type families map[string]fileID

func (f families) of(dir string) family {
	var all family
	for {
		id, known := f[dir]
		if !known {
			var st unix.Stat_t
			if err := unix.Stat(dir, &st); err == nil { // else nothing is equal to it
				id = fileID{st.Dev, st.Ino}
			}
			f[dir] = id
		}
		all = append(all, id)
		if dir == "/" {
			return all
		}
		dir = filepath.Dir(dir)
	}
}

// inside tells whether f is, or lies in, what g is of.
func (f family) inside(g family) bool {
	if g[0] == (fileID{}) {
		return false
	}
	for _, id := range f {
		if id == g[0] {
			return true
		}
	}
	return false
}

// apart refuses layers of which one would be written with another: the upper
// and the work directory one in the other, and a lower layer in either, as the
// kernel does (ovl_check_overlapping_layers: ELOOP). What it allows too and
// warns of is an upper in a lower layer, whose part there changes while it is
// mounted. (The kernel also refuses equal and nested lower layers, which do no
// harm.) Paths are absolute and without symlinks.
func apart(lower []string, upper, work string) (warning string, err error) {
	f := families{}
	up, wk := f.of(upper), f.of(work)
	if up.inside(wk) || wk.inside(up) {
		return "", errno.New(errno.ErrBadValue, "upperdir %s and workdir %s are one, or lie one in the other: make them side by side", upper, work)
	}
	for _, l := range lower {
		low := f.of(l)
		for _, w := range []struct {
			name, dir string
			family
		}{{"upperdir", upper, up}, {"workdir", work, wk}} {
			if low.inside(w.family) {
				return "", errno.New(errno.ErrBadValue, "the lower layer %s is the %s or lies in it (%s), and would be written to: use another directory", l, w.name, w.dir)
			}
			if w.inside(low) {
				warning = fmt.Sprintf("%s %s lies in the lower layer %s, which changes with it: what is below it there may be shown as it was", w.name, w.dir, l)
			}
		}
	}
	return warning, nil
}
