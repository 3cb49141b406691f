package fuseoverlay

import (
	"errors"
	"testing"

	"github.com/plyfs/plyfs/internal/errno"
)

func TestMountConfigIsChecked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]MountConfig{
		"no layer":       {},
		"upper alone":    {Lower: []string{"/l"}, Upper: "/u"},
		"work alone":     {Lower: []string{"/l"}, Work: "/w"},
		"upper is work":  {Lower: []string{"/l"}, Upper: "/u/", Work: "/u"},
		"too many layer": {Lower: make([]string, MaxLayers), Upper: "/u", Work: "/w"},
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
