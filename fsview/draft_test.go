package fsview_test

import (
	"strings"
	"testing"

	"github.com/plyfs/plyfs/fsview"
)

// fill writes a draft's files.
func (w *world) fill(draft string, files map[string]string) {
	w.t.Helper()
	w.mkdir("drafts/" + draft)
	for name, v := range files {
		if err := w.write("drafts/"+draft+"/"+name, v); err != nil {
			w.t.Fatalf("writing drafts/%s/%s: %v", draft, name, err)
		}
	}
}

func TestDraftLayer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/base")
	id := strings.Repeat("ef", 32)
	w.fill("x", map[string]string{"id": id + "\n", "parent": "base\n", "names": "one\ntwo\n", "metadata": "m", "label": "system_u:object_r:x:s0\n"})
	if err := w.write("drafts/x/diff.tar", string(tarOf(t, "f=hello"))); err != nil {
		t.Fatal(err)
	}
	w.is(w.write("drafts/x/parent", ""), "EBUSY", "parent after diff.tar")
	w.same(w.peer("layers"), strings.TrimSpace(w.read("layers/base/id"))+"\n\tname: base", "what the peers see of a draft")
	if err := w.mv("drafts/x", "layers/entry"); err != nil {
		t.Fatal(err)
	}
	w.same(w.read("layers/entry/id"), id+"\n", "id")
	w.same(w.read("layers/entry/names"), "one\ntwo\nentry\n", "names")
	w.same(w.read("layers/entry/metadata"), "m", "metadata")
	w.same(w.read("layers/entry/label"), "system_u:object_r:x:s0\n", "label")
	w.same(w.link("layers/entry/parent"), "../../layers/base", "parent")
	w.same(w.read("layers/entry/tree/f"), "hello", "content")
	w.same(w.ls("drafts"), []string{}, "drafts after the commit")
	w.nothingStaged()
}

func TestDraftImageAndContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/base")
	w.fill("i", map[string]string{"layer": "/layers/base\n", "created": "2020-01-02T03:04:05Z\n", "bigdata/extra%2Fkey": "data"})
	if err := w.mv("drafts/i", "images/docker.io%2Fapp:1"); err != nil {
		t.Fatal(err)
	}
	w.same(w.read("images/docker.io%2Fapp:1/created"), "2020-01-02T03:04:05Z\n", "created")
	w.same(w.read("images/docker.io%2Fapp:1/bigdata/extra%2Fkey"), "data", "a data item")
	w.same(w.read("images/docker.io%2Fapp:1/manifest") != "", true, "a manifest")
	id := strings.Repeat("12", 32)
	w.fill("c", map[string]string{"image": "docker.io/app:1\n", "metadata": "{}", "volatile": "true\n"})
	if err := w.mv("drafts/c", "containers/"+id); err != nil {
		t.Fatal(err)
	}
	w.same(w.read("containers/"+id+"/volatile"), "true\n", "volatile")
	w.same(w.link("containers/"+id+"/image"), "../../images/docker.io%2Fapp:1", "image")
	w.same(w.read("containers/"+id+"/metadata"), "{}", "metadata")
}

func TestDraftRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("containers/taken")
	root := w.fs.Root()
	w.fill("x", map[string]string{"names": "n\n"})
	w.is(fsview.Mkdir(w.ctx, root, "drafts/x"), "EEXIST", "the same draft again")
	w.is(w.write("drafts/x/image", "nothing\n"), "ENOENT", "an unknown image")
	w.is(w.write("drafts/x/volatile", "maybe\n"), "EINVAL", "no boolean")
	w.is(w.write("drafts/x/idmap/uid", "0 0\n"), "EINVAL", "no ID map")
	w.is(w.write("drafts/x/digest", "sha256:1\n"), "EINVAL", "no digest")
	w.is(w.write("drafts/x/id", "a/b\n"), "EINVAL", "no ID")
	w.is(w.mv("drafts/x", "containers/free"), "EINVAL", "a draft with files that could not be written")
	for _, file := range []string{"image", "volatile", "idmap/uid", "digest", "id"} {
		if err := w.write("drafts/x/"+file, ""); err != nil {
			t.Fatal(err)
		}
	}
	w.same(w.read("drafts/x/diff.tar"), "", "reading a draft's stream")
	w.is(w.mv("drafts/x", "containers/taken"), "EEXIST", "a name that is taken")
	w.same(strings.Contains(w.read("drafts/x/error"), "taken"), true, "the draft's error")
	w.is(w.mv("drafts/x", "containers/by-id"), "EEXIST", "a fixed entry")
	w.is(w.mv("drafts/x", "drafts/y"), "EINVAL", "mv of a draft to another draft")
	w.is(w.mv("drafts/x", "config/y"), "EINVAL", "mv of a draft elsewhere")

	f := w.open("drafts/x/names", wr)
	w.is(w.mv("drafts/x", "containers/new"), "EBUSY", "mv while a file is open for writing")
	w.is(fsview.Rmdir(w.ctx, root, "drafts/x"), "EBUSY", "rmdir while a file is open for writing")
	f.ok(f.release())
	s := w.open("drafts/x/diff.tar", trun)
	w.is(w.mv("drafts/x", "containers/new"), "EBUSY", "mv while the stream is open")
	s.ok(s.write(string(tarOf(t, "a=x")), 0), s.flush(), s.release())
	w.is(w.mv("drafts/x", "containers/new"), "EINVAL", "a container with a diff.tar")
	w.same(w.ls("drafts"), []string{"x"}, "the draft is still there")
	w.rmdir("drafts/x")
	w.nothingStaged()
	w.same(strings.Contains(w.peer("containers"), "name: taken"), true, "the container that was there")
	w.same(len(w.ls("layers/by-id")), 1, "layers")
}

// TestDraftsGoWithTheMount: nothing is left of them.
func TestDraftsGoWithTheMount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	f := w.newFS(fsview.Options{Store: w.store, Trees: dirTrees{}})
	w.fs = f
	w.fill("x", nil)
	if err := w.write("drafts/x/diff.tar", string(tarOf(t, "f=hello"))); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.nothingStaged()
	w.same(w.peer("layers"), "", "layers")
}

// TestDraftReplacesItsDiff: the second stream counts.
func TestDraftReplacesItsDiff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "overlay")
	w.fill("x", nil)
	for _, m := range []string{"a=1", "b=2"} {
		if err := w.write("drafts/x/diff.tar", string(tarOf(t, m))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.mv("drafts/x", "layers/l"); err != nil {
		t.Fatal(err)
	}
	w.same(w.ls("layers/l/diff"), []string{"b"}, "content")
	w.nothingStaged()
}

// TestDraftLayerWithData: data items come with the layer, and one that is made
// read-only stays as it is; the peers' program keeps both.
func TestDraftLayerWithData(t *testing.T) {
	t.Parallel()
	for _, streamed := range []bool{false, true} {
		w := newWorld(t, "overlay")
		w.fill("x", map[string]string{"readonly": "true\n", "bigdata/one%2Fkey": "data", "metadata": "m"})
		if streamed {
			if err := w.write("drafts/x/diff.tar", string(tarOf(t, "f=hello"))); err != nil {
				t.Fatal(err)
			}
			w.is(w.write("drafts/x/readonly", "false\n"), "EBUSY", "readonly after diff.tar")
			w.is(w.write("drafts/x/volatile", "true\n"), "EBUSY", "volatile after diff.tar")
			if err := w.write("drafts/x/bigdata/two", "more"); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.mv("drafts/x", "layers/l"); err != nil {
			t.Fatal(err)
		}
		w.same(w.read("layers/l/bigdata/one%2Fkey"), "data", "an item")
		w.same(len(w.ls("layers/l/bigdata")), map[bool]int{false: 1, true: 2}[streamed], "items")
		w.same(w.peer("get-layer-data", "l", "one/key"), "data", "the item, as the peers see it")
		w.peer("set-metadata", "-m", "theirs", "l") // rewrites the record
		w.same(w.read("layers/l/readonly"), "true\n", "readonly")
		w.is(w.write("layers/l/ctl", "mount\n"), "EROFS", "mounting it")
		w.is(w.write("layers/l/diff.tar", string(tarOf(t, "g=x"))), "EROFS", "filling it")
		w.mkdir("layers/l/children/top")
		w.same(w.read("layers/top/readonly"), "false\n", "readonly of a child")
		w.rmdir("layers/top")
		w.rmdir("layers/l")
		w.nothingStaged()
	}
}
