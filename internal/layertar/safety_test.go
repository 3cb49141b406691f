package layertar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// guarded is a directory to extract into with a canary beside it, which names
// such as ../canary/f or a symlink to it would reach.
type guarded struct {
	top, root, canary string
	before            []string
}

func guard(t testing.TB) *guarded {
	t.Helper()
	top := t.TempDir()
	g := &guarded{top: top, root: filepath.Join(top, "root"), canary: filepath.Join(top, "canary")}
	err := errors.Join(os.Mkdir(g.root, 0o755), os.Mkdir(g.canary, 0o750), os.WriteFile(filepath.Join(g.canary, "f"), []byte("sings"), 0o640),
		os.Mkdir(filepath.Join(g.canary, "d"), 0o700))
	if err != nil {
		t.Fatal(err)
	}
	g.before = g.now(t)
	return g
}

func (g *guarded) now(t testing.TB) []string {
	t.Helper()
	es, err := os.ReadDir(g.top)
	if err != nil {
		t.Fatal(err)
	}
	out := treeOf(t, g.canary)
	for _, e := range es {
		out = append(out, e.Name())
	}
	return out
}

func (g *guarded) check(t testing.TB) {
	t.Helper()
	if d := cmp.Diff(g.before, g.now(t)); d != "" {
		t.Fatalf("the world outside of the layer changed:\n%s", d)
	}
}

func (g *guarded) apply(t testing.TB, stream []byte, o layertar.ApplyOptions) error {
	t.Helper()
	d, err := os.Open(g.root)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, d)
	_, err = layertar.Import(context.Background(), d, bytes.NewReader(stream), io.Discard, o)
	return err
}

// TestHistory replays the public history of archive vulnerabilities in
// container tools: whatever the answer is, nothing outside changes.
func TestHistory(t *testing.T) {
	t.Parallel()
	up := "../canary"
	for name, c := range map[string]struct {
		ms      []member
		refused bool
	}{
		// CVE-2014-6407, CVE-2014-9356, CVE-2018-15664, CVE-2021-30465's relatives: a symlink, then a member through it.
		"symlink then through":  {[]member{{typ: '2', name: "e", link: up}, {typ: '0', name: "e/f", data: "x"}}, true},
		"absolute symlink":      {[]member{{typ: '2', name: "e", link: "ABS"}, {typ: '0', name: "e/f", data: "x"}}, true},
		"two symlinks":          {[]member{{typ: '2', name: "a", link: ".."}, {typ: '2', name: "b", link: "a/canary"}, {typ: '0', name: "b/f", data: "x"}}, true},
		"symlink, nested":       {[]member{{typ: '5', name: "x/"}, {typ: '2', name: "x/e", link: "../../canary"}, {typ: '0', name: "x/e/f", data: "x"}}, true},
		"symlink, dir over":     {[]member{{typ: '2', name: "e", link: up}, {typ: '5', name: "e/d/"}}, true},
		"symlink, mode through": {[]member{{typ: '2', name: "e", link: up + "/d"}, {typ: '5', name: "e/"}}, true}, // the same name twice
		// CVE-2014-6408, CVE-2018-1002200 ("zip slip"), CVE-2020-15157's archives: dot-dot and absolute names.
		"dot-dot":     {[]member{{typ: '0', name: "../canary/f", data: "x"}}, false},
		"absolute":    {[]member{{typ: '0', name: "ABS/f", data: "x"}}, false},
		"dot-dot dir": {[]member{{typ: '5', name: "../canary/d/"}}, false},
		// CVE-2015-3627, CVE-2021-32760, CVE-2024-1753's kin: hard links to the outside, and mode or content through them.
		"hard link out":              {[]member{{typ: '1', name: "h", link: "../canary/f"}, {typ: '0', name: "h", data: "x"}}, true},
		"hard link out, absolute":    {[]member{{typ: '1', name: "h", link: "ABS/f"}}, true},
		"hard link through symlink":  {[]member{{typ: '2', name: "e", link: up}, {typ: '1', name: "h", link: "e/f"}}, true},
		"hard link to symlink, then": {[]member{{typ: '2', name: "e", link: up + "/f"}, {typ: '1', name: "h", link: "e"}, {typ: '0', name: "x/../h", data: "x"}}, true},
		"file over symlink":          {[]member{{typ: '2', name: "e", link: up + "/f"}, {typ: '0', name: "./x/../e", data: "x"}}, true},
		// CVE-2015-1331's and CVE-2017-1002101's pattern through whiteouts: removal outside.
		"whiteout of dot-dot":       {[]member{{typ: '0', name: "x/.wh..."}}, true},
		"whiteout through symlink":  {[]member{{typ: '2', name: "e", link: up}, {typ: '0', name: "e/.wh.f"}}, true},
		"whiteout of the link":      {[]member{{typ: '2', name: "e", link: up}, {typ: '0', name: ".wh.e"}}, false},
		"opaque through symlink":    {[]member{{typ: '2', name: "e", link: up}, {typ: '0', name: "e/.wh..wh..opq"}}, true},
		"opaque, dot-dot":           {[]member{{typ: '0', name: "../canary/.wh..wh..opq"}}, false},
		"whiteout, dot-dot":         {[]member{{typ: '0', name: "../canary/.wh.f"}}, false},
		"replaced by symlink after": {[]member{{typ: '5', name: "d/"}, {typ: '0', name: "d/1"}, {typ: '0', name: ".wh.d"}, {typ: '2', name: "z/../d2", link: up}, {typ: '0', name: "d2/f", data: "x"}}, true},
	} {
		for _, style := range []whiteout.Style{whiteout.Apply, whiteout.Files} {
			g := guard(t)
			var ms []member
			for _, m := range c.ms {
				m.name, m.link = strings.ReplaceAll(m.name, "ABS", g.canary), strings.ReplaceAll(m.link, "ABS", g.canary)
				ms = append(ms, m)
			}
			err := g.apply(t, makeTar(t, ms...), layertar.ApplyOptions{Style: style})
			if (err != nil) != c.refused || (err != nil && !errors.Is(err, errno.ErrBadStream)) {
				t.Errorf("%s: %v", name, err)
			}
			g.check(t)
		}
	}
}

// One name by two ways is the same name: the record could not give both back.
func TestSameFileTwice(t *testing.T) {
	t.Parallel()
	for name, ms := range map[string][]member{
		"through a symlink":         {{typ: '5', name: "a/"}, {typ: '0', name: "a/x", data: "1"}, {typ: '2', name: "l", link: "a"}, {typ: '0', name: "l/x", data: "22"}},
		"through an absolute one":   {{typ: '0', name: "a/x", data: "1"}, {typ: '2', name: "l", link: "/a"}, {typ: '0', name: "l/x", data: "22"}},
		"through dot-dot":           {{typ: '0', name: "a/x", data: "1"}, {typ: '0', name: "b/../a/./x", data: "22"}},
		"opaque, through a symlink": {{typ: '0', name: "a/x", data: "1"}, {typ: '0', name: "a/.wh..wh..opq"}, {typ: '2', name: "l", link: "a"}, {typ: '0', name: "l/.wh..wh..opq"}},
	} {
		if err := guard(t).apply(t, makeTar(t, ms...), layertar.ApplyOptions{}); !errors.Is(err, errno.ErrBadStream) || !strings.Contains(err.Error(), "two members") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What was made through a symlink is spared by an opaque mark, too.
	stream := makeTar(t, member{typ: '5', name: "a/"}, member{typ: '2', name: "l", link: "a"}, member{typ: '0', name: "l/x", data: "1"}, member{typ: '0', name: "a/.wh..wh..opq"})
	dir, split, _, err := importTar(t, stream, layertar.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, r := openSplit(t, dir, split)
	var out bytes.Buffer
	if _, err := r.WriteTo(&out); err != nil || !bytes.Equal(out.Bytes(), stream) {
		t.Errorf("export: %v", err)
	}
}

// Directories' late attributes are not set through a symlink that has taken
// a directory's place (CVE-2019-14271's pattern of a second look).
func TestLateAttributesDoNotFollow(t *testing.T) {
	t.Parallel()
	g := guard(t)
	first := makeTar(t, member{typ: '5', name: "d/"})
	if err := g.apply(t, first, layertar.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(g.root)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, d)
	// Without a record a name may come twice: d is a directory, then a symlink.
	twice := makeTar(t, member{typ: '5', name: "d/"}, member{typ: '2', name: "d", link: "../canary/d"})
	if _, err := layertar.Import(context.Background(), d, bytes.NewReader(twice), nil, layertar.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	g.check(t)
}

func TestLimits(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 200)
	var x bytes.Buffer
	w := tar.NewWriter(&x)
	if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: '0', Name: "f", PAXRecords: map[string]string{"SCHILY.xattr.user.a": strings.Repeat("v", 3000)}}), w.Close()); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		stream []byte
		limits layertar.Limits
	}{
		"entries":    {makeTar(t, member{typ: '0', name: "a"}, member{typ: '0', name: "b"}, member{typ: '0', name: "c"}), layertar.Limits{Entries: 2}},
		"name":       {makeTar(t, member{typ: '0', name: long}), layertar.Limits{Name: 100}},
		"link":       {makeTar(t, member{typ: '2', name: "l", link: long}), layertar.Limits{Name: 100}},
		"header":     {makeTar(t, member{typ: '0', name: long}), layertar.Limits{Header: 100}},
		"xattrs":     {x.Bytes(), layertar.Limits{Xattrs: 1000}},
		"file size":  {makeTar(t, member{typ: '0', name: "f", data: long}), layertar.Limits{FileSize: 100}},
		"total":      {makeTar(t, member{typ: '0', name: "f", data: strings.Repeat(long, 100)}), layertar.Limits{Total: 10000}},
		"components": {makeTar(t, member{typ: '0', name: strings.Repeat("d/", 30) + "f"}), layertar.Limits{Components: 20}},
	} {
		g := guard(t)
		if err := g.apply(t, c.stream, layertar.ApplyOptions{}); err != nil {
			t.Errorf("%s: within the defaults: %v", name, err)
		}
		err := guard(t).apply(t, c.stream, layertar.ApplyOptions{Limits: c.limits})
		if !errors.Is(err, errno.ErrBadStream) || !strings.Contains(err.Error(), "limit") {
			t.Errorf("%s: %v", name, err)
		}
		if name != "total" && (err == nil || !strings.Contains(err.Error(), "at byte")) {
			t.Errorf("%s: no offset: %v", name, err)
		}
	}
}

func TestOwnersThroughMaps(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: sets owners")
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, uid := range []int{0, 5, 999} {
		if err := w.WriteHeader(&tar.Header{Typeflag: '0', Name: "d/" + string(rune('a'+i)), Mode: 0o4755, Uid: uid, Gid: uid}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	m := idmap.Maps{UIDs: []idmap.Range{{ContainerID: 0, HostID: 100000, Size: 1000}}, GIDs: []idmap.Range{{ContainerID: 0, HostID: 200000, Size: 1000}}}
	dir, _, res, err := importTar(t, b.Bytes(), layertar.ApplyOptions{Maps: m})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]uint32{0, 5, 999}, res.UIDs); d != "" {
		t.Error(d)
	}
	for i, l := range treeOf(t, dir)[1:] {
		want := []string{" 40755 100000:200000 ", " 104755 100000:200000 ", " 104755 100005:200005 ", " 104755 100999:200999 "}[i]
		if !strings.Contains(l, want) {
			t.Errorf("%s, want %s", l, want)
		}
	}
	back := describeTar(t, generate(t, layertar.Source{New: []string{dir}, Maps: m}))
	if len(back) != 4 || !strings.Contains(back[3], " 999:999 ") {
		t.Errorf("exported: %q", back)
	}
	small := idmap.Maps{UIDs: []idmap.Range{{ContainerID: 0, HostID: 100000, Size: 10}}}
	if _, _, _, err := importTar(t, b.Bytes(), layertar.ApplyOptions{Maps: small}); !errors.Is(err, errno.ErrBadStream) {
		t.Errorf("an unmapped owner: %v", err)
	}
	dir, _, _, err = importTar(t, b.Bytes(), layertar.ApplyOptions{OverrideStat: true})
	if err != nil {
		t.Fatal(err)
	}
	back = describeTar(t, generate(t, layertar.Source{New: []string{dir}, OverrideStat: true}))
	if len(back) != 4 || !strings.Contains(back[3], " 104755 999:999 ") {
		t.Errorf("exported from notes: %q", back)
	}
}
