package fuseoverlay

import (
	"path"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// FuzzMarks gives the decoders anything; what they accept must be harmless.
func FuzzMarks(f *testing.F) {
	for _, s := range []string{"y", "x", "name", "/a/b", "/", "..", "/a/../b", "a/b", "0:0:100644", "1:2:755:dir", "-1:0:0", ":::", "4294967296:0:0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		for _, k := range []kind{missing, whiteout, directory, regular, other} {
			m := mark{kind: k}
			for _, n := range markTable() {
				n.apply(&m, []byte(v))
			}
			if m.metacopy && k != regular || m.opacity != transparent && k != directory {
				t.Errorf("%q: %+v", v, m)
			}
			s := search{name: "start"}
			if _, err := s.take(m, step{}, false); err == nil {
				checkTarget(t, s.name)
			}
		}
		if o, ok := parseOverride(v); ok && o.perm&^0o7777 != 0 {
			t.Errorf("%q: mode %o", v, o.perm)
		}
		if AllMarks.isMarkFile(v) && whitedOut(v) == v {
			t.Errorf("%q hides itself", v)
		}
	})
}

// checkTarget holds what is looked for after a redirect to names.
func checkTarget(t *testing.T, target string) {
	t.Helper()
	names := []string{target}
	if strings.HasPrefix(target, "/") {
		if path.Clean(target) != target {
			t.Errorf("path %q is not clean", target)
		}
		names, _ = split(target)
	}
	for _, n := range names {
		if n == "" || n == "." || n == ".." || strings.ContainsAny(n, "/\x00") || len(n) > maxName {
			t.Errorf("looks for %q in %q", n, target)
		}
	}
}

// TestSplit: a path is what surrounds a component, and the component.
func TestSplit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.StringMatching(`[a-z]{1,3}`), 1, 5).Draw(t, "names")
		p := "/" + strings.Join(want, "/")
		names, steps := split(p)
		if strings.Join(names, "/") != strings.Join(want, "/") || len(steps) != len(want) {
			t.Fatalf("%q: %q", p, names)
		}
		for i, n := range names {
			if got := steps[i].pre + n + steps[i].post; got != p || steps[i].end() != (i == len(names)-1) {
				t.Fatalf("%q at %d: %+v", p, i, steps[i])
			}
		}
	})
}

// TestEscape holds the laws that xattr.go states.
func TestEscape(t *testing.T) {
	t.Parallel()
	part := rapid.SampledFrom([]string{"trusted.", "user.", "overlay.", "fuseoverlayfs.", "opaque", "x", "security.", "."})
	rapid.Check(t, func(t *rapid.T) {
		n := strings.Join(rapid.SliceOfN(part, 1, 5).Draw(t, "name"), "")
		f := rapid.SampledFrom([]Format{Trusted, User, AllMarks, AllMarks | Override, Files}).Draw(t, "formats")
		if f.foreign(n) {
			if _, shown := f.unescape(n); shown {
				t.Fatalf("%q is shown", n)
			}
			return
		}
		if back, shown := f.unescape(f.escape(n)); !shown || back != n {
			t.Fatalf("%q is kept as %q and shown as %q, %v", n, f.escape(n), back, shown)
		}
		if seen, shown := f.unescape(n); shown && f.escape(seen) != n {
			t.Fatalf("%q is shown as %q, which is kept as %q", n, seen, f.escape(seen))
		}
	})
}

// TestSearchEnds: whatever layers answer, a search keeps files or directories,
// never both, and looks only for names.
func TestSearchEnds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := search{name: "n"}
		var kept []kind
		for i := range 8 {
			if s.stop {
				break
			}
			m := mark{
				kind:     kind(rapid.IntRange(0, 4).Draw(rt, "kind")),
				opacity:  opacity(rapid.IntRange(0, 2).Draw(rt, "opacity")),
				metacopy: rapid.Bool().Draw(rt, "metacopy"),
				redirect: rapid.SampledFrom([]string{"", "", "m", "/a/b", "../x"}).Draw(rt, "redirect"),
			}
			m.metacopy = m.metacopy && m.kind == regular
			if s.absolute() {
				_, steps := split(s.name)
				keep, err := s.take(mark{kind: directory}, steps[0], i == 7)
				if err != nil || !keep {
					t.Fatalf("a directory on the way is not entered: %v", err)
				}
			}
			keep, err := s.take(m, step{}, i == 7)
			if err != nil {
				if m.redirect != "../x" {
					t.Fatalf("%q: %v", m.redirect, err)
				}
				return
			}
			checkTarget(t, s.name)
			if keep {
				kept = append(kept, m.kind)
			}
		}
		for i, k := range kept {
			if (k == directory) != (kept[0] == directory) || k == missing || k == whiteout || i > 0 && k == other {
				t.Fatalf("kept %v", kept)
			}
		}
	})
}
