package fsview

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/idmap"
)

// checkEncoded checks the laws that Encode and EncodeFirst state.
func checkEncoded(t interface {
	Helper()
	Fatalf(string, ...any)
}, name string) {
	t.Helper()
	for _, e := range []string{Encode(name), EncodeFirst(name), encodeAll(name)} {
		got, err := Decode(e)
		if err != nil || got != name {
			t.Fatalf("%q is encoded as %q, which decodes as %q, %v", name, e, got, err)
		}
		if e == "." || e == ".." || strings.ContainsAny(e, "/\x00\n\x7f") || strings.IndexFunc(e, func(r rune) bool { return r < 0x20 }) >= 0 {
			t.Fatalf("%q is encoded as %q, which is no file name", name, e)
		}
	}
	if EncodeFirst(name) == Encode(name) && !mustEscape(name[0]) && name != "." && name != ".." {
		t.Fatalf("both encodings of %q are %q", name, Encode(name))
	}
}

func FuzzEncode(f *testing.F) {
	for _, s := range []string{"a", ".", "..", "...", "a/b", "%", "%2F", "\x01", "\x7f", "é", "a..", "x.", "x..", "/", "..%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if name == "" || strings.ContainsRune(name, 0) {
			return
		}
		checkEncoded(t, name)
	})
}

// FuzzDecode: what decodes to a name encodes to something that decodes to it
// again, and an entry of only plain characters stands for itself.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{"a", "%2F", "%2f", "%", "%0", "%00", "%zz", "a%25", "%%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, entry string) {
		name, err := Decode(entry)
		if err != nil {
			return
		}
		if !strings.Contains(entry, "%") && name != entry {
			t.Fatalf("%q decodes as %q", entry, name)
		}
		if name != "" && !strings.ContainsRune(name, 0) {
			checkEncoded(t, name)
		}
	})
}

// TestEncodeInjective: two names never share an entry, whichever of the forms
// each has.
func TestEncodeInjective(t *testing.T) {
	name := rapid.StringMatching(`[ab./%F2\x01]{1,4}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := name.Draw(t, "a"), name.Draw(t, "b")
		checkEncoded(t, a)
		if a == b {
			return
		}
		for _, x := range []string{Encode(a), EncodeFirst(a)} {
			for _, y := range []string{Encode(b), EncodeFirst(b)} {
				if x == y {
					t.Fatalf("%q and %q are both %q", a, b, x)
				}
			}
		}
	})
}

// TestNamePath: below by-name every name has one path, no path is a folder and
// a name at once, and the path leads back to the name.
func TestNamePath(t *testing.T) {
	name := rapid.StringMatching(`[ab.%]{0,2}(/[ab.]{0,2}){0,3}`).Filter(func(s string) bool { return s != "" })
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfDistinct(name, func(s string) string { return s }).Draw(t, "names")
		is := map[string]bool{}
		for _, n := range names {
			is[n] = true
		}
		paths := map[string]string{}
		for _, n := range names {
			p, ok := namePath(n, func(s string) bool { return is[s] })
			if !ok {
				t.Fatalf("%q has no path", n)
			}
			if other, taken := paths[p]; taken {
				t.Fatalf("%q and %q are both at %q", n, other, p)
			}
			paths[p] = n
			if back, err := plainName(p); err != nil || back != n {
				t.Fatalf("%q is at %q, which leads to %q, %v", n, p, back, err)
			}
		}
		for p := range paths {
			for q := range paths {
				if strings.HasPrefix(q, p+"/") {
					t.Fatalf("%q is a name and a folder of %q", p, q)
				}
			}
		}
	})
}

func FuzzParseNames(f *testing.F) {
	for _, s := range []string{"", "\n", "a\nb\n", "a\n\nb", " a", "a\x00", "\xff", "a\tb\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		names, err := parseNames(v, []string{"tab\there"})
		if err != nil {
			return
		}
		shown := make([]string, len(names))
		for i, n := range names {
			if n == "" || !utf8.ValidString(n) || strings.ContainsAny(n, "\n\x00") {
				t.Fatalf("%q gives the name %q", v, n)
			}
			shown[i] = showName(n)
		}
		again, err := parseNames(lines(shown), names)
		if err != nil || len(again) != len(names) {
			t.Fatalf("%q shows as %q, which gives %q, %v", names, shown, again, err)
		}
		for i := range again {
			if again[i] != names[i] && showName(again[i]) != showName(names[i]) {
				t.Fatalf("%q came back as %q", names[i], again[i])
			}
		}
	})
}

func FuzzParseVerbs(f *testing.F) {
	for _, s := range []string{"", "mount\n", "umount force\n", "# x\n", "mount # y", "umount force force", "x", "\x00", "forget-data a%23b", "mount ro,nodev", "mount ro,,x", "delete", "delete force", "import /a  b%23", "import a", "check full", "wipe yes"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		for _, specs := range [][]verbSpec{storeVerbs(), importVerbs(), layerVerbs(), imageVerbs(), containerVerbs()} {
			verbs, err := parseVerbs(v, specs)
			if err != nil && verbs != nil {
				t.Fatal("an error and verbs")
			}
			for _, x := range verbs {
				again, err := parseVerbs([]byte(x.spec.name+" "+x.arg), specs)
				if err != nil || len(again) != 1 || again[0].arg != x.arg || again[0].spec.name != x.spec.name {
					t.Fatalf("%q gives the verb %s %q, which gives %v, %v", v, x.spec.name, x.arg, again, err)
				}
				if x.spec.must && x.arg == "" || x.spec.rest == "" && x.arg != "" && !contains(x.spec.words, x.arg) {
					t.Fatalf("%q gives the verb %s with %q", v, x.spec.name, x.arg)
				}
				if path, err := importedPath(x.arg); x.spec.name == "import" && (err != nil || !filepath.IsAbs(path)) {
					t.Fatalf("%q imports %q, %v", v, path, err)
				}
				o, err := parseMount(x.arg)
				if x.spec.name == "mount" && (err != nil || !subset(o.Options, mountWords())) {
					t.Fatalf("%q mounts with %q, %v", v, o.Options, err)
				}
			}
		}
	})
}

func subset(words, of []string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !slices.Contains(of, w) })
}

func FuzzParseIDMap(f *testing.F) {
	for _, s := range []string{"", "0 0 1\n", "0:100000:65536", "1 2", "0 0 4294967295\n1 1 1\n", "-1 0 1", "99999999999 0 1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		m, err := parseIDMap(v)
		if err != nil {
			return
		}
		again, err := parseIDMap(showIDMap(m))
		if err != nil || len(again) != len(m) {
			t.Fatalf("%v came back as %v, %v", m, again, err)
		}
		for i, r := range m {
			if again[i] != (idmap.Range{ContainerID: r.ContainerID, HostID: r.HostID, Size: r.Size}) {
				t.Fatalf("%v came back as %v", r, again[i])
			}
		}
	})
}

func FuzzParseValues(f *testing.F) {
	for _, s := range []string{"", "true\n", "0", "512m\n", "1e9", ".5k", "9223372036854775807", "sha256:x", "2006-01-02T15:04:05Z\n", "a\nb\n", "\xff\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		if s, err := parseValue(v); err == nil && (strings.Contains(s, "\n") || !utf8.ValidString(s)) {
			t.Fatalf("%q gives the value %q", v, s)
		}
		if d, err := parseDigest(v); err == nil && d != "" && d.Validate() != nil {
			t.Fatalf("%q gives the digest %q", v, d)
		}
		if b, err := parseBool(v); err == nil && b && !strings.HasPrefix(string(v), "true") && !strings.HasPrefix(string(v), "1") {
			t.Fatalf("%q is true", v)
		}
		if _, err := parseTime(v); err == nil && len(v) > 100 {
			t.Fatalf("%q is a time", v)
		}
		for _, parse := range []func([]byte) (int64, error){parseLimit, parseCount} {
			n, err := parse(v)
			if again, aerr := parse(showLimit(n)); err == nil && (n < 0 || aerr != nil || again != n) {
				t.Fatalf("%q gives the bound %d, which is shown as one of %d (%v)", v, n, again, aerr)
			}
		}
		if md, err := parseMetadata(v); err == nil && md != string(v) {
			t.Fatalf("%q gives the metadata %q", v, md)
		}
	})
}

// TestIDMapOverlap: two ranges that share an ID are refused.
func TestIDMapOverlap(t *testing.T) {
	for v, ok := range map[string]bool{
		"0 0 10\n10 10 5\n": true, "0 0 10\n9 100 5\n": false, "0 0 10\n20 9 5\n": false, "0 0 4294967296\n": false, "0 0 4294967295\n": true,
	} {
		if _, err := parseIDMap([]byte(v)); (err == nil) != ok {
			t.Errorf("%q: %v, want accepted: %t", v, err, ok)
		}
	}
}

func TestOrdinal(t *testing.T) {
	for _, c := range []struct {
		i, n int
		want string
	}{{0, 1, "00"}, {9, 10, "09"}, {99, 100, "99"}, {5, 101, "005"}} {
		if got := ordinal(c.i, c.n); got != c.want {
			t.Errorf("ordinal(%d, %d) is %s, want %s", c.i, c.n, got, c.want)
		}
	}
}
