package fsview_test

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/errno"
)

// fuzzWorld is a store in memory with a base layer, an image and a container.
func fuzzWorld(f *testing.F) *world {
	f.Helper()
	w := newWorldIn(f, memoryDir(f), "vfs")
	w.mkdir("layers/base")
	w.mkdir("layers/base/images/app")
	w.mkdir("images/app/containers/web")
	return w
}

// answerable fails the test on an error that no input may bring about: one
// of a broken store or device, or one without an errno of its own.
func (w *world) answerable(err error, doing string) {
	w.t.Helper()
	switch errno.Of(err) {
	case syscall.EIO, syscall.EUCLEAN, syscall.ENOSYS, syscall.EFAULT:
		w.t.Errorf("%s: %v", doing, err)
	}
}

// FuzzDraft fills a draft with anything and commits it: it becomes an object
// that shows what was written, or it stays and nothing is made.
func FuzzDraft(f *testing.F) {
	items := []string{"id", "names", "parent", "layer", "image", "label", "volatile", "readonly", "size", "inodes", "digest", "created",
		"metadata", "idmap/uid", "idmap/gid", "bigdata/k", "diff.tar"}
	kinds := []string{"layers", "images", "containers"}
	good := tarOf(f, "d/", "d/f=text", "l->d/f", ".wh.gone=")
	for _, s := range []struct {
		kind, a uint8
		x       string
		b       uint8
		y, tar  string
	}{
		{0, 1, "one\ntwo\n", 2, "base\n", string(good)},
		{0, 15, "\x00data", 7, "true\n", ""},
		{0, 12, "m", 5, "a:b:c:d\n", string(good[:700])},
		{0, 13, "0 1 1\n", 14, "0 1 1\n", string(good[:512])},
		{1, 3, "base\n", 11, "2020-01-02T03:04:05Z\n", ""},
		{1, 10, "sha256:1\n", 12, "{}", ""},
		{2, 4, "app\n", 6, "true\n", ""},
		{2, 0, strings.Repeat("ab", 32) + "\n", 8, "512m\n", string(good)},
		{2, 1, "web\n", 9, "-1\n", ""},
		{1, 1, "\xff\xfe\n", 16, "no archive", "\x1f\x8b\x08"},
	} {
		f.Add(s.kind, s.a, []byte(s.x), s.b, []byte(s.y), []byte(s.tar))
	}
	shared := fuzzWorld(f)
	f.Fuzz(func(t *testing.T, kind, a uint8, x []byte, b uint8, y, archive []byte) {
		v := *shared
		w := &v
		w.t = t
		dir := kinds[int(kind)%len(kinds)]
		before := [][]string{w.ls("layers"), w.ls("images"), w.ls("containers")}
		w.mkdir("drafts/x")
		wrote := map[string]string{}
		put := func(item, text string) {
			err := w.write("drafts/x/"+item, text)
			w.answerable(err, "writing "+item)
			if err == nil {
				wrote[item] = text
			} else {
				delete(wrote, item)
			}
		}
		put(items[int(a)%len(items)], string(x))
		put(items[int(b)%len(items)], string(y))
		if len(archive) > 0 {
			put("diff.tar", string(archive))
		}
		err := w.mv("drafts/x", dir+"/made")
		w.answerable(err, "the commit")
		if err != nil {
			w.same([][]string{w.ls("layers"), w.ls("images"), w.ls("containers")}, before, "objects after a commit that failed")
			w.rmdir("drafts/x")
		} else {
			w.sameAsDraft(dir+"/made", wrote)
			w.rmdir(dir + "/made")
			w.same([][]string{w.ls("layers"), w.ls("images"), w.ls("containers")}, before, "objects after rmdir of what was made")
		}
		w.same(w.ls("drafts"), []string{}, "drafts")
		w.nothingStaged()
	})
}

// sameAsDraft compares an object with what was written into its draft.
func (w *world) sameAsDraft(object string, wrote map[string]string) {
	w.t.Helper()
	for _, item := range []string{"metadata", "bigdata/k"} {
		if want, ok := wrote[item]; ok {
			w.same(w.read(object+"/"+item), want, item)
		}
	}
	names := strings.Split(strings.TrimSuffix(w.read(object+"/names"), "\n"), "\n")
	w.same(names[len(names)-1], "made", "the oldest name")
	for _, n := range strings.Split(wrote["names"], "\n") {
		if n != "" && !slices.Contains(names, n) {
			w.t.Errorf("the name %q is missing in %q", n, names)
		}
	}
}

// FuzzBetween looks up anything in diff/: what is found is two names of
// objects with two dots between them, and can be read.
func FuzzBetween(f *testing.F) {
	w := fuzzWorld(f)
	id := strings.TrimSpace(w.read("layers/base/id"))
	for _, s := range []string{"layer:base..image:app", id + ".." + id, "image:app..container:web", "..", "a..", "..b", "a...b", "layer:base...base",
		"layer:base..layer:base..x", "layer:%2E%2E..layer:base", "layer:%..%", "image:..image:", id[:12] + "..image:app", "container:web..\xff", "layer:base/..image:app"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if name == "" || strings.ContainsAny(name, "/\x00") {
			t.Skip("no name of a file")
		}
		v := *w
		w := &v
		w.t = t
		_, err := fsview.Walk(w.ctx, w.fs.Root(), "diff/"+name, false)
		w.answerable(err, "looking it up")
		if err != nil {
			return
		}
		from, to, ok := strings.Cut(name, "..")
		if name != "." && name != ".." && (!ok || from == "" || to == "" || strings.Contains(to, "..")) {
			t.Errorf("%q is found, and is no pair", name)
		}
		if _, err := w.readErr("diff/" + name + "/changes"); name != "." && name != ".." && err != nil {
			t.Errorf("reading changes of %q: %v", name, err)
		}
	})
}
