package whiteout_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/whiteout"
)

func TestNameLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.StringMatching(`(\.wh\.)?[a-z.]{1,8}`).Draw(t, "base")
		if base == "." || base == ".." {
			t.Skip("no file name")
		}
		mark, hidden := whiteout.Parse(whiteout.Name(base))
		if strings.HasPrefix(base, ".wh.") {
			if mark == whiteout.Whiteout {
				t.Fatalf("%q: a whiteout of a mark", base)
			}
			return
		}
		if mark != whiteout.Whiteout || hidden != base {
			t.Fatalf("Parse(Name(%q)) = %v, %q", base, mark, hidden)
		}
	})
	for _, c := range []struct {
		base string
		mark whiteout.Mark
	}{
		{".wh.", whiteout.Invalid}, {".wh..", whiteout.Invalid}, {".wh...", whiteout.Invalid},
		{".wh....", whiteout.Whiteout}, {".wh..wh..opq", whiteout.Opaque}, {".wh..wh.aufs", whiteout.Meta},
		{".wh", whiteout.Plain}, {"a.wh.b", whiteout.Plain},
	} {
		if got, _ := whiteout.Parse(c.base); got != c.mark {
			t.Errorf("Parse(%q) = %v, want %v", c.base, got, c.mark)
		}
	}
}

func TestXattrLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := whiteout.Style(rapid.IntRange(0, 3).Draw(t, "style"))
		name := rapid.StringMatching(`(trusted|user)\.(overlay\.){0,3}[a-z]{1,5}`).Draw(t, "name")
		stored := s.Escape(name)
		back, ok := s.Unescape(stored)
		if !ok || back != name {
			t.Fatalf("Unescape(Escape(%q)) = %q, %v", name, back, ok)
		}
		if seen, ok := s.Unescape(name); ok && s.Escape(seen) != name {
			t.Fatalf("Escape(Unescape(%q)) = %q", name, s.Escape(seen))
		}
		if _, ok := s.Unescape(name); !ok && !whiteout.IsPrivate(name) {
			t.Fatalf("%q is hidden but not private", name)
		}
	})
}
