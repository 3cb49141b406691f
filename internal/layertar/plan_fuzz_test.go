package layertar

import (
	"path"
	"strings"
	"testing"
)

// FuzzPlan: whatever a member says, what is planned stays below the root, and
// planning the place again gives the same place.
func FuzzPlan(f *testing.F) {
	for _, n := range []string{"a", "./a/b", "/etc/passwd", "../../x", "a/../../b", ".", "", "a/.wh.b", "a/.wh..wh..opq", ".wh..", ".wh...", ".wh..wh.plnk/x", "a//b/", "a/./", strings.Repeat("d/", 2000)} {
		f.Add(n, "target", byte('0'), int64(0o644), int64(0))
		f.Add("x", n, byte('1'), int64(-1), int64(1)<<32)
		f.Add("x", n, byte('2'), int64(0o7777), int64(5))
	}
	f.Fuzz(func(t *testing.T, name, link string, typ byte, mode, id int64) {
		lim := Limits{}.withDefaults()
		o, reason := planMember(&header{name: name, link: link, typ: typ, mode: mode, uid: id, gid: id}, lim)
		if reason != "" {
			return
		}
		for _, p := range []string{path.Join(o.dir, o.base), o.target} {
			for c := range strings.SplitSeq(p, "/") {
				if c == ".." || (c == "" && p != "") || (c == "." && p != ".") {
					t.Fatalf("%q, %q, %q: planned at %q", name, link, typ, p)
				}
			}
		}
		if strings.Contains(o.base, "/") || (o.base == "" && o.kind != opRoot) {
			t.Fatalf("%q: the name %q", name, o.base)
		}
		if o.kind == opWhiteout && (o.target == "" || o.target == "." || strings.Contains(o.target, "/")) {
			t.Fatalf("%q: a whiteout of %q", name, o.target)
		}
		if o.perm&^0o7777 != 0 || o.uid < 0 || o.gid < 0 {
			t.Fatalf("%q: %+v", name, o)
		}
		again, reason := planMember(&header{name: path.Join(o.dir, o.base), link: link, typ: typ, mode: mode, uid: id, gid: id}, lim)
		if o.kind != opRoot && (reason != "" || again.dir != o.dir || again.base != o.base || again.kind != o.kind) {
			t.Fatalf("%q: planned again: %q, %+v after %+v", name, reason, again, o)
		}
	})
}
