package fuseoverlay

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/fusetest"
)

func TestMountConfigIsChecked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]MountConfig{
		"no layer":        {},
		"upper alone":     {Lower: []string{"/l"}, Upper: "/u"},
		"work alone":      {Lower: []string{"/l"}, Work: "/w"},
		"upper is work":   {Lower: []string{"/l"}, Upper: "/u/", Work: "/u"},
		"too many layers": {Lower: make([]string, MaxLayers), Upper: "/u", Work: "/w"},
		"too many, lower": {Lower: make([]string, MaxLayers+1)},
	} {
		if err := c.check(); !errors.Is(err, errno.ErrBadValue) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := MountConfig{Lower: []string{"/l"}}
	if err := c.check(); err != nil || c.FsName != Subtype || c.MaxWrite == 0 || c.Log == nil || c.Formats != AllMarks {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestLayersAreApart: no layer may change with another, by whatever path it is
// given. The kernel's overlay is the oracle; it also refuses lower layers that
// lie one in the other, which do no harm.
func TestLayersAreApart(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	fusetest.Must(t, `cd $1; mkdir -p l/in l2 u/in w/in m bind both/u both/w; ln -s u link; mount --bind u bind`, dir)
	defer fusetest.Must(t, "umount -l $1/bind", dir)
	for _, c := range []struct {
		lower, upper, work string
		fine               bool
	}{
		{"l", "u", "w", true}, {"l:l2", "both/u", "both/w", true}, {"l2:l", "u", "w", true},
		{"l", "u", "u", false}, {"l", "u", "u/in", false}, {"l", "w/in", "w", false}, {"l", "u", "link", false}, {"l", "link", "link/in", false},
		{"u", "u", "w", false}, {"l:u", "u", "w", false}, {"link", "u", "w", false}, {"l:u/in", "u", "w", false}, {"w", "u", "w", false}, {"l:w/in:l2", "u", "w", false},
		{"both", "both/u", "both/w", true}, {".", "u", "w", true}, {"bind", "u", "w", false}, {"bind/in", "u", "w", false},
	} {
		lower := strings.Split(c.lower, ":")
		for i := range lower {
			lower[i] = filepath.Join(dir, lower[i])
		}
		m := MountConfig{Lower: lower, Upper: filepath.Join(dir, c.upper), Work: filepath.Join(dir, c.work)}
		o, err := newOverlay(m)
		if err == nil {
			err = o.close()
		}
		if c.fine && err != nil || !c.fine && !errors.Is(err, errno.ErrBadValue) {
			t.Errorf("%+v: %v", c, err)
		}
		opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", strings.Join(lower, ":"), m.Upper, m.Work)
		if r := fusetest.Script(t, `mount -t overlay o -o "$1" "$2/m" && umount "$2/m"`, opts, dir); (r.Status == 0) != c.fine {
			t.Errorf("%+v: the kernel's overlay: %d, %s", c, r.Status, r.Err)
		}
	}
}
