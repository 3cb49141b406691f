package fsview_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/vnode"
)

// members lists an archive, sorted: names, types, contents.
func members(t testing.TB, data string) []string {
	t.Helper()
	var list []string
	tr := tar.NewReader(strings.NewReader(data))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			slices.Sort(list)
			return list
		}
		if err != nil {
			t.Fatalf("reading an archive of %d bytes: %v", len(data), err)
		}
		var b bytes.Buffer
		if _, err := io.Copy(&b, tr); err != nil {
			t.Fatal(err)
		}
		list = append(list, h.Name+" "+string(h.Typeflag)+" "+h.Linkname+" "+b.String())
	}
}

func sortedLines(s string) []string {
	l := strings.Split(strings.TrimSpace(s), "\n")
	slices.Sort(l)
	return l
}

// TestDiffBetween compares diff/ of related and unrelated objects with what
// the peers say.
func TestDiffBetween(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"vfs", "overlay"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, driver, func(o *fsview.Options) { o.ShowStreams = true })
			fill := func(layer string, files ...string) {
				t.Helper()
				if err := w.write("layers/"+layer+"/diff.tar", string(tarOf(t, files...))); err != nil {
					t.Fatal(err)
				}
			}
			w.mkdir("layers/base")
			fill("base", "a=1", "dir/", "dir/b=2", "dir/gone=3")
			w.mkdir("layers/base/children/mid")
			fill("mid", "a=other", "dir/.wh.gone=")
			w.mkdir("layers/mid/children/to..p")
			fill("to..p", "new=4", "l->a")
			w.mkdir("layers/else")
			fill("else", "dir/", "dir/b=different", "x=5")
			w.mkdir("layers/to..p/images/localhost%2Fapp:1")
			w.mkdir("images/localhost%2Fapp:1/containers/web")
			id := func(path string) string { return strings.TrimSpace(w.read(path + "/id")) }
			top, els, web := id("layers/to..p"), id("layers/else"), id("containers/web/layer")
			for _, c := range []struct{ name, from, to string }{
				{"layer:base..layer:mid", "base", "mid"},
				{"layer:base..layer:to%2E%2Ep", "base", top},
				{"layer:to%2E%2Ep..layer:base", top, "base"},
				{top + ".." + els, top, els},
				{"layer:" + els + ".." + top, els, top},
				{"image:localhost%2Fapp:1..layer:else", top, els},
				{"layer:else..container:web", els, web},
				{"layer:mid..container:web", "mid", web},
				{"layer:mid..layer:mid", "mid", "mid"},
			} {
				dir := "diff/" + c.name
				w.same(w.ls(dir), []string{"changes", "size", "tar"}, "ls "+dir)
				w.same(sortedLines(w.read(dir+"/changes")), sortedLines(w.peer("changes", c.to, c.from)), dir+"/changes")
				w.same(members(t, w.read(dir+"/tar")), members(t, w.peer("diff", "-u", c.to, c.from)), dir+"/tar")
				w.same(w.read(dir+"/size"), w.peer("diffsize", c.to, c.from)+"\n", dir+"/size")
			}
			w.same(w.read("diff/layer:base..layer:mid/tar") == w.read("layers/mid/diff.tar"), true, "to the parent: the layer's diff.tar")
			w.same(w.ls("diff"), []string{}, "ls diff")
			w.betweenNothing("base", "to%2E%2Ep", "else")
		})
	}
}

// betweenNothing compares layers with an image that has none: everything comes,
// everything goes, and the archive makes the layer's tree.
func (w *world) betweenNothing(layers ...string) {
	w.t.Helper()
	w.mkdir("images/none")
	for _, l := range layers {
		to, from := "diff/image:none..layer:"+l, "diff/layer:"+l+"..image:none"
		var all, top []string
		for _, m := range members(w.t, w.read(to+"/tar")) {
			name := strings.TrimSuffix(strings.Fields(m)[0], "/")
			all = append(all, `Add "/`+name+`"`)
			if !strings.Contains(name, "/") {
				top = append(top, `Delete "/`+name+`"`)
			}
		}
		w.same(sortedLines(w.read(to+"/changes")), all, to+"/changes")
		w.same(sortedLines(w.read(from+"/changes")), top, from+"/changes")
		w.same(w.read(from+"/size"), "0\n", from+"/size")
		copied := strings.ReplaceAll("copy-of-"+l, "%2E", "-")
		w.mkdir("layers/" + copied)
		if err := w.write("layers/"+copied+"/diff.tar", w.read(to+"/tar")); err != nil {
			w.t.Fatal(err)
		}
		w.same(w.read("diff/layer:"+l+"..layer:"+copied+"/changes"), "", "what the archive does not hold of "+l)
	}
	w.same(w.read("diff/image:none..image:none/changes"), "", "between nothing and nothing")
}

// TestDiffBetweenNothing: what is no pair is refused, and a pair goes with its
// objects.
func TestDiffBetweenNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/a")
	w.mkdir("layers/b")
	w.mkdir("images/empty")
	w.mkdir("layers/" + strings.Repeat("a", 64))
	for name, want := range map[string]string{
		"aaaa..aaaa": "ENOENT", "layer:aaaa..layer:a": "ENOENT", // beginnings of an ID
		"layer:a": "EINVAL", "..": "OK", "layer:a..": "EINVAL", "..layer:a": "EINVAL", "layer:a...layer:b": "EINVAL",
		"layer:a..layer:b..layer:a": "EINVAL", "layer:a..layer:%zz": "EINVAL", "layer:a..image:empty": "OK",
		"layer:a..layer:none": "ENOENT", "a..b": "ENOENT", "layer:a..container:a": "ENOENT",
	} {
		_, err := fsview.Walk(w.ctx, w.fs.Root(), "diff/"+name, true)
		w.is(err, want, "diff/"+name)
	}
	w.same(w.ls("diff/layer:a..layer:b"), []string{}, "only what has a known size is listed")
	w.same(w.read("diff/layer:a..layer:b/size"), "0\n", "size")
	n, err := fsview.Walk(w.ctx, w.fs.Root(), "diff/layer:a..layer:b/changes", true)
	if err != nil {
		t.Fatal(err)
	}
	w.rmdir("layers/b")
	_, err = n.(vnode.Opener).Open(w.ctx, 0)
	w.is(err, "ENOENT", "changes to a layer that is gone")
}

// TestCompressedDiffs: diff.tar.gz and diff.tar.zst are diff.tar, compressed.
func TestCompressedDiffs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "overlay")
	w.mkdir("layers/new")
	data := string(tarOf(t, "./", "./a="+strings.Repeat("hello ", 50000), "./b/"))
	if err := w.write("layers/new/diff.tar", data); err != nil {
		t.Fatal(err)
	}
	for _, ext := range []string{"gz", "zst"} {
		packed := w.read("layers/new/diff.tar." + ext)
		if len(packed) >= len(data)/2 {
			t.Errorf("diff.tar.%s has %d bytes of %d", ext, len(packed), len(data))
		}
		w.mkdir("layers/" + ext)
		if err := w.write("layers/"+ext+"/diff.tar", packed); err != nil {
			t.Fatal(err)
		}
		w.same(w.read("layers/"+ext+"/diff.tar") == data, true, "unpacked again, diff.tar."+ext)
		w.same(slices.Contains(w.ls("layers/new"), "diff.tar."+ext), false, "listed")
	}
	w.mkdir("layers/new/images/app")
	w.mkdir("images/app/containers/web")
	if s := w.read("containers/web/diff.tar.gz"); len(s) == 0 {
		t.Error("a container's diff.tar.gz is empty")
	}
}
