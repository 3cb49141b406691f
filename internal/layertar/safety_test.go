package layertar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/layertar"
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
		"ratio":      {gzipped(t, makeTar(t, member{typ: '0', name: "f", data: strings.Repeat("\x00", 3<<20)})), layertar.Limits{Ratio: 50}},
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
		if err == nil || !strings.Contains(err.Error(), "at byte") {
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

// A device that could not be made, and an owner that could not be given, are
// kept as notes and exported again; a mode that was changed since is exported.
func TestNotesAreExported(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Uid: 5, Gid: 6, Devmajor: 1, Devminor: 3},
		{Typeflag: tar.TypeBlock, Name: "sda", Mode: 0o660, Gid: 6, Devmajor: 8, Devminor: 300},
		{Typeflag: tar.TypeReg, Name: "file", Mode: 0o644, Uid: 7, Gid: 8},
	} {
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
	if err := os.Chmod(filepath.Join(dir, "file"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(bytes.NewReader(generate(t, layertar.Source{New: []string{dir}, OverrideStat: true})))
	var got []string
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%c %s %o %d:%d %d,%d", h.Typeflag, h.Name, h.Mode&0o7777, h.Uid, h.Gid, h.Devmajor, h.Devminor))
	}
	want := []string{"0 file 755 7:8 0,0", "3 null 666 5:6 1,3", "4 sda 660 0:6 8,300"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
