package layertar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// rawHeader is one header block, which archive/tar would not write so.
func rawHeader(typ byte, name string, size int64, edit func(b []byte)) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x0000000000000\x00", size))
	b[156] = typ
	copy(b[257:], "ustar\x0000")
	if edit != nil {
		edit(b)
	}
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func padded(b []byte) []byte { return append(b, make([]byte, -len(b)&511)...) }

func rawFile(name, data string) []byte {
	return append(rawHeader('0', name, int64(len(data)), nil), padded([]byte(data))...)
}

// paxHeader is an extended header with records, keys and values in turn.
func paxHeader(typ byte, kv ...string) []byte {
	var text []byte
	for i := 0; i < len(kv); i += 2 {
		rest := " " + kv[i] + "=" + kv[i+1] + "\n"
		n := len(rest)
		for n != len(rest)+len(fmt.Sprint(n)) {
			n = len(rest) + len(fmt.Sprint(n))
		}
		text = append(text, fmt.Sprint(n)+rest...)
	}
	return append(rawHeader(typ, "PaxHeaders/x", int64(len(text)), nil), padded(text)...)
}

var endBlocks = make([]byte, 1024)

// TestGlobalHeader: a global header is a thing of its own: what stands before
// it says nothing of the member after it, and none need follow.
func TestGlobalHeader(t *testing.T) {
	t.Parallel()
	global := paxHeader('g', "comment", "c")
	inner := rawHeader('0', "evil", 0, nil)
	for name, parts := range map[string][][]byte{
		"a size before":      {paxHeader('x', "size", "512"), global, rawHeader('0', "a", 1024, nil), bytes.Repeat([]byte("A"), 512), inner},
		"a path before":      {paxHeader('x', "path", "zzz"), global, rawFile("a", "1")},
		"a long name before": {rawHeader('L', "././@LongLink", 5, nil), padded([]byte("long\x00")), global, rawFile("a", "1")},
		"alone":              {global},
		"two alone":          {global, global},
		"at the end":         {rawFile("a", "1"), global},
		"a path of its own":  {paxHeader('g', "path", "zzz"), rawFile("a", "1"), rawFile("b", "2")},
	} {
		for _, tail := range [][]byte{endBlocks, nil} {
			stream := append(slices.Concat(parts...), tail...)
			var want []string
			for r := tar.NewReader(bytes.NewReader(stream)); ; {
				h, err := r.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatalf("%s: archive/tar: %v", name, err)
				}
				if h.Typeflag != tar.TypeXGlobalHeader {
					want = append(want, h.Name)
				}
			}
			got, err := layertar.MemberNames(bytes.NewReader(stream), layertar.Limits{})
			if d := cmp.Diff(want, got); err != nil || d != "" {
				t.Errorf("%s: %v: %s", name, err, d)
			}
			if _, _, _, err := importTar(t, stream, layertar.ApplyOptions{}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := layertar.MemberNames(bytes.NewReader(append(paxHeader('x', "path", "zzz"), endBlocks...)), layertar.Limits{}); !errors.Is(err, errno.ErrBadStream) {
		t.Errorf("an extended header without its member: %v", err)
	}
}

// TestSizesMakeSense: a sparse member of a negative size is refused before
// anything is made of it.
func TestSizesMakeSense(t *testing.T) {
	t.Parallel()
	for name, stream := range map[string][]byte{
		"PAX 1.0": append(paxHeader('x', "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "a", "GNU.sparse.realsize", "-5"), rawFile("a", "0\n"+strings.Repeat("\x00", 510))...),
		"GNU": rawHeader('S', "a", 0, func(b []byte) {
			copy(b[257:], "ustar  \x00")
			copy(b[483:], bytes.Repeat([]byte{0xff}, 12))
		}),
	} {
		dir, _, _, err := importTar(t, append(stream, endBlocks...), layertar.ApplyOptions{})
		if !errors.Is(err, errno.ErrBadStream) || !strings.Contains(err.Error(), "negative size") || !strings.Contains(err.Error(), "at byte 0") {
			t.Errorf("%s: %v", name, err)
		}
		if es, err := os.ReadDir(dir); err != nil || len(es) > 0 {
			t.Errorf("%s: made %v, %v", name, es, err)
		}
	}
}

// TestManyAttributes: of attributes with one name the last counts, however
// many others there are.
func TestManyAttributes(t *testing.T) {
	t.Parallel()
	var kv []string
	for i := range 20_000 {
		kv = append(kv, fmt.Sprintf("SCHILY.xattr.user.overlay.%x", i), "")
	}
	kv = append(kv, "SCHILY.xattr.user.a", "first", "SCHILY.xattr.user.b", "b", "SCHILY.xattr.user.a", "last")
	stream := slices.Concat(paxHeader('x', kv...), rawFile("f", "1"), endBlocks)
	dir, _, _, err := importTar(t, stream, layertar.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := unix.Getxattr(filepath.Join(dir, "f"), "user.a", buf)
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("no user attributes in %s: the value cannot be looked at", dir)
	}
	if err != nil || string(buf[:n]) != "last" {
		t.Errorf("user.a is %q, %v", buf[:n], err)
	}
}

// TestSparseMapText: the map of format 1.0 as it may be cut by blocks.
func TestSparseMapText(t *testing.T) {
	t.Parallel()
	const extents = 500
	text := fmt.Sprintf("%d\n", extents)
	want := make([]byte, 4*extents)
	for i := range extents {
		text += fmt.Sprintf("%d\n1\n", 4*i)
		want[4*i] = 'x'
	}
	data := string(padded([]byte(text))) + strings.Repeat("x", extents)
	sparse := func(size int, data string) []byte {
		return slices.Concat(paxHeader('x', "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "f", "GNU.sparse.realsize", fmt.Sprint(size)),
			rawFile("f", data), endBlocks)
	}
	dir, split, _, err := importTar(t, sparse(len(want), data), layertar.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "f"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	_, r := openSplit(t, dir, split)
	var out bytes.Buffer
	if _, err := r.WriteTo(&out); err != nil || !bytes.Equal(out.Bytes(), sparse(len(want), data)) {
		t.Errorf("export: %v", err)
	}
	for name, text := range map[string]string{
		"no count":        "x\n1\n1\n",
		"a long number":   "1\n" + strings.Repeat("0", 600) + "\n1\n",
		"a negative one":  "-1\n",
		"more than there": "1000000\n0\n0\n",
		"cut":             "2\n0\n1\n",
		"no number":       "1\n0\n\n",
	} {
		_, _, _, err := importTar(t, sparse(4, string(padded([]byte(text)))+"x"), layertar.ApplyOptions{})
		if !errors.Is(err, errno.ErrBadStream) || !strings.Contains(err.Error(), "sparse map") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestGroupOfLateDirectory: files in a directory that was made before its
// member came have the group that the stream says, and not the directory's.
func TestGroupOfLateDirectory(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, dir := range []string{"d/", "./"} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range []tar.Header{
			{Typeflag: tar.TypeReg, Name: dir + "a", Mode: 0o644},
			{Typeflag: tar.TypeDir, Name: dir, Mode: 0o2775, Gid: 50},
			{Typeflag: tar.TypeReg, Name: dir + "b", Mode: 0o2755},
			{Typeflag: tar.TypeSymlink, Name: dir + "l", Linkname: "a"},
			{Typeflag: tar.TypeFifo, Name: dir + "p", Mode: 0o600},
		} {
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		root, _, _, err := importTar(t, b.Bytes(), layertar.ApplyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "b", "l", "p"} {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(root, dir, name), &st); err != nil || st.Gid != 0 {
				t.Errorf("%s%s has the group %d, %v", dir, name, st.Gid, err)
			}
		}
	}
}

// TestPlaceOfWhatWasMade: nothing takes the place of what the same stream has
// made or gone through: what is accepted comes back byte for byte.
func TestPlaceOfWhatWasMade(t *testing.T) {
	t.Parallel()
	before := []member{{typ: '5', name: "t/"}, {typ: '2', name: "s", link: "t"}, {typ: '5', name: "old/"}, {typ: '0', name: "old/f", data: "1"}}
	for name, c := range map[string]struct {
		ms      []member
		refused bool
	}{
		"a file":                {[]member{{typ: '0', name: "d/f", data: "abc"}, {typ: '0', name: "d", data: "xy"}}, true},
		"a symlink":             {[]member{{typ: '0', name: "d/f", data: "abc"}, {typ: '2', name: "d", link: "/etc"}}, true},
		"a hard link":           {[]member{{typ: '0', name: "x"}, {typ: '0', name: "d/f", data: "abc"}, {typ: '1', name: "d", link: "x"}}, true},
		"a FIFO":                {[]member{{typ: '0', name: "d/e/f", data: "abc"}, {typ: '6', name: "d/e"}}, true},
		"where a name led":      {[]member{{typ: '0', name: "s/f", data: "1"}, {typ: '5', name: "s/"}}, true},
		"the directory itself":  {[]member{{typ: '0', name: "d/f", data: "abc"}, {typ: '5', name: "d/"}}, false},
		"what was there before": {[]member{{typ: '0', name: "new", data: "1"}, {typ: '2', name: "old", link: "t"}, {typ: '5', name: "s/"}}, false},
	} {
		tmp := t.TempDir()
		dir, split := filepath.Join(tmp, "root"), filepath.Join(tmp, "split")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := importInto(t, dir, split, bytes.NewReader(makeTar(t, before...)), layertar.ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
		stream := makeTar(t, c.ms...)
		_, err := importInto(t, dir, split, bytes.NewReader(stream), layertar.ApplyOptions{})
		if c.refused {
			if !errors.Is(err, errno.ErrBadStream) || !strings.Contains(err.Error(), "takes the place") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_, r := openSplit(t, dir, split)
		var out bytes.Buffer
		if _, err := r.WriteTo(&out); err != nil || !bytes.Equal(out.Bytes(), stream) {
			t.Errorf("%s: export: %v", name, err)
		}
	}
}

// TestMadeBesideItsWhiteout: in every style what a stream makes after a
// whiteout of the same name is there, and hides what is below.
func TestMadeBesideItsWhiteout(t *testing.T) {
	t.Parallel()
	needRoot(t)
	below := t.TempDir()
	for _, p := range []string{"x/old", "y/old", "z"} {
		p = filepath.Join(below, p)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte("old"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	stream := makeTar(t, member{typ: '0', name: ".wh.x"}, member{typ: '5', name: "x/"}, member{typ: '0', name: "x/new", data: "1"},
		member{typ: '0', name: ".wh.y"}, member{typ: '0', name: "y/new", data: "1"},
		member{typ: '0', name: ".wh.z"}, member{typ: '0', name: "z", data: "new"})
	for style, name := range map[whiteout.Style]string{whiteout.Files: "files", whiteout.Trusted: "trusted"} {
		dir, _, _, err := importTar(t, stream, layertar.ApplyOptions{Style: style})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, p := range []string{".wh.x", ".wh.y", ".wh.z"} {
			if _, err := os.Lstat(filepath.Join(dir, p)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %s hides what was made: %v", name, p, err)
			}
		}
		var got []string
		err = layertar.Changes(context.Background(), layertar.Source{New: []string{dir, below}, Old: []string{below}, UpperStyle: style},
			func(c layertar.Change) error { got = append(got, c.Kind.String()+" "+c.Path); return nil })
		want := []string{"Modify /x", "Add /x/new", "Delete /x/old", "Modify /y", "Add /y/new", "Delete /y/old", "Modify /z"}
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v: %s", name, err, d)
		}
	}
	// A layer of the peers' may have both.
	top := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(top, "x"), 0o755), os.WriteFile(filepath.Join(top, ".wh.x"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := layertar.Changes(context.Background(), layertar.Source{New: []string{top, below}, Old: []string{below}, UpperStyle: whiteout.Files},
		func(c layertar.Change) error { got = append(got, c.Kind.String()+" "+c.Path); return nil })
	if err != nil || !slices.Contains(got, "Delete /x/old") {
		t.Errorf("%v: %q", err, got)
	}
}

// TestOpaqueAtEveryLevel: each directory is pruned once, whatever marks come,
// and what was there before is gone.
func TestOpaqueAtEveryLevel(t *testing.T) {
	t.Parallel()
	const depth = 30
	at := func(n int) string { return strings.Repeat("d/", n) }
	var first, up, down []member
	for i := range depth {
		first = append(first, member{typ: '0', name: at(i) + "old"})
		up = append(up, member{typ: '0', name: at(i) + "new"})
	}
	down = slices.Clone(up)
	for i := range depth - 1 {
		up = append(up, member{typ: '0', name: at(depth-1-i) + ".wh..wh..opq"})
		down = append(down, member{typ: '0', name: at(i+1) + ".wh..wh..opq"})
	}
	down = append(down, member{typ: '0', name: at(depth-1) + "last"})
	for name, ms := range map[string][]member{"upwards": up, "downwards": down} {
		g := guard(t)
		if err := errors.Join(g.apply(t, makeTar(t, first...), layertar.ApplyOptions{}), g.apply(t, makeTar(t, ms...), layertar.ApplyOptions{})); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for i := range depth {
			_, old := os.Lstat(filepath.Join(g.root, at(i), "old"))
			_, now := os.Lstat(filepath.Join(g.root, at(i), "new"))
			if now != nil || (old == nil) != (i == 0) {
				t.Errorf("%s, level %d: old %v, new %v", name, i, old, now)
			}
		}
	}
}

// TestHeadersAsGo: sequences of extended headers and members say to this
// parser what they say to Go's, which the peers use, or are refused.
func TestHeadersAsGo(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.SampledFrom([]string{"", "", "512", "1024", "7", "-1", "x", "0", "1", "1,2", "0,512", "a/b"})
		key := rapid.SampledFrom([]string{"path", "linkpath", "size", "uid", "gid", "mtime", "atime", "comment", "SCHILY.xattr.user.a",
			"GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.name", "GNU.sparse.realsize", "GNU.sparse.size", "GNU.sparse.map",
			"GNU.sparse.numblocks", "GNU.sparse.offset", "GNU.sparse.numbytes"})
		var stream []byte
		for range rapid.IntRange(1, 6).Draw(t, "headers") {
			switch kind := rapid.SampledFrom([]byte("xxxgLK00512")).Draw(t, "kind"); kind {
			case 'x', 'g':
				var kv []string
				for range rapid.IntRange(1, 5).Draw(t, "records") {
					kv = append(kv, key.Draw(t, "key"), value.Draw(t, "value"))
				}
				stream = append(stream, paxHeader(kind, kv...)...)
			case 'L', 'K':
				stream = append(stream, rawHeader(kind, "././@LongLink", 5, nil)...)
				stream = append(stream, padded([]byte("long\x00"))...)
			default:
				size := 512 * rapid.IntRange(0, 3).Draw(t, "size")
				stream = append(stream, rawHeader(kind, rapid.SampledFrom([]string{"a", "b/c", "d/"}).Draw(t, "name"), int64(size), nil)...)
				if kind == '0' {
					stream = append(stream, bytes.Repeat(rawHeader('0', "inner", 0, nil), size/512)...)
				}
			}
		}
		stream = append(stream, endBlocks...)
		want, ok := goMembers(stream)
		if !ok {
			t.Skip("archive/tar refuses it")
		}
		got, err := layertar.Members(bytes.NewReader(stream), layertar.Limits{})
		if errors.Is(err, errno.ErrBadStream) {
			return
		}
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Fatalf("%v: %s", err, d)
		}
	})
}

// goMembers returns what archive/tar makes of each member, as layertar.Members
// writes it; false if it refuses the stream, or one has more than 1 MiB.
func goMembers(stream []byte) (out []string, ok bool) {
	for r := tar.NewReader(bytes.NewReader(stream)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, true
		}
		if err != nil || h.Size > 1<<20 {
			return nil, false
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, false
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		switch h.Typeflag {
		case tar.TypeGNUSparse, tar.TypeCont: // regular files here
			h.Typeflag = tar.TypeReg
		case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo: // a size there means nothing
			h.Size = 0
		}
		out = append(out, fmt.Sprintf("%q %q %c %d %d:%d %d %x", h.Name, h.Linkname, h.Typeflag, h.Size, h.Uid, h.Gid, h.ModTime.UnixNano(), sha256.Sum256(data)))
	}
}

// TestEmptyValueTakesBack: of several records with one key the last counts, an
// empty one is none, and GNU's long name goes before PAX's.
func TestEmptyValueTakesBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stream []byte
		want   []string
	}{
		"size": {slices.Concat(paxHeader('x', "size", "512", "size", ""), rawHeader('0', "a", 1024, nil), bytes.Repeat([]byte("A"), 512), rawHeader('0', "evil", 0, nil)), []string{"a"}},
		"path": {slices.Concat(paxHeader('x', "path", "p", "path", ""), rawFile("a", "1")), []string{"a"}},
		"long": {slices.Concat(rawHeader('L', "L", 3, nil), padded([]byte("ab\x00")), paxHeader('x', "path", "p"), rawFile("a", "1")), []string{"ab"}},
	} {
		got, err := layertar.MemberNames(bytes.NewReader(append(c.stream, endBlocks...)), layertar.Limits{})
		if d := cmp.Diff(c.want, got); err != nil || d != "" {
			t.Errorf("%s: %v: %s", name, err, d)
		}
	}
	if _, err := layertar.MemberNames(bytes.NewReader(slices.Concat(rawHeader('g', "g", 5, nil), padded([]byte("99 x\n")), rawFile("a", "1"), endBlocks)), layertar.Limits{}); !errors.Is(err, errno.ErrBadStream) {
		t.Errorf("a malformed global header: %v", err)
	}
}

// TestSetIDOfNotedOwners: in a store of a single ID no file runs as its user
// but those that are the container's root's; the stream has the bits again.
func TestSetIDOfNotedOwners(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "g", Mode: 0o2755, Gid: 5}, {Name: "r", Mode: 0o6755}, {Name: "u", Mode: 0o6755, Uid: 4095, Gid: 5}, {Name: "v", Mode: 0o6755, Uid: 7},
	} {
		h.Typeflag, h.Format = tar.TypeReg, tar.FormatUSTAR
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir, _, _, err := importTar(t, b.Bytes(), layertar.ApplyOptions{OverrideStat: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint32{"g": 0o755, "r": 0o6755, "u": 0o755, "v": 0o2755} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil || st.Mode&0o7777 != want {
			t.Errorf("%s has the mode %o, %v", name, st.Mode&0o7777, err)
		}
	}
	var out bytes.Buffer
	if err := layertar.Generate(context.Background(), &out, layertar.Source{New: []string{dir}, OverrideStat: true}); err != nil {
		t.Fatal(err)
	}
	for r, n := tar.NewReader(&out), 0; ; n++ {
		h, err := r.Next()
		if err == io.EOF && n == 4 {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if want := map[string]int64{"g": 0o2755, "r": 0o6755, "u": 0o6755, "v": 0o6755}[h.Name]; h.Mode&0o7777 != want {
			t.Errorf("%s is exported with the mode %o", h.Name, h.Mode&0o7777)
		}
	}
}

// TestStepsThroughLinks: a name is not walked without end, however much stands
// in symbolic links, and one directory behind links is found once.
func TestStepsThroughLinks(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("d/../", 500)
	ms := []member{{typ: '5', name: "d/"}, {typ: '2', name: "s0", link: "d"}}
	for i := range 10 {
		ms = append(ms, member{typ: '2', name: fmt.Sprintf("s%d", i+1), link: long + fmt.Sprintf("s%d", i)})
	}
	g := guard(t)
	err := g.apply(t, makeTar(t, append(ms, member{typ: '0', name: "s10/f"})...), layertar.ApplyOptions{})
	if !errors.Is(err, errno.ErrBadStream) || !strings.Contains(err.Error(), "components") {
		t.Errorf("10,000 components: %v", err)
	}
	g = guard(t)
	// The link is replaced between two members: the second goes where it leads then.
	moved := append(ms[:4:4], member{typ: '0', name: "s2/f", data: "1"}, member{typ: '0', name: "s2/g", data: "1"})
	if err := g.apply(t, makeTar(t, moved...), layertar.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	again := makeTar(t, member{typ: '0', name: "s2/1"}, member{typ: '5', name: "e/"}, member{typ: '2', name: "s2", link: "e"}, member{typ: '0', name: "s2/2"})
	d, err := os.Open(g.root)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, d)
	if _, err := layertar.Import(context.Background(), d, bytes.NewReader(again), nil, layertar.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"d/f", "d/g", "d/1", "e/2"} {
		if _, err := os.Lstat(filepath.Join(g.root, p)); err != nil {
			t.Error(err)
		}
	}
}
