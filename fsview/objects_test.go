package fsview_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/vnode"
)

func (w *world) same(got, want any, what string) {
	w.t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		w.t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func (w *world) ln(target, path string) error {
	return fsview.Symlink(w.ctx, w.fs.Root(), target, path)
}

func (w *world) rm(path string) error { return fsview.Unlink(w.ctx, w.fs.Root(), path) }

// TestMakeAndRemove: mkdir, cat, mv, rmdir are symmetric, and the peers see
// each step.
func TestMakeAndRemove(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/base")
	w.mkdir("layers/base/children/top")
	w.same(w.link("layers/base/children/top"), "../../../layers/top", "the nested form's symlink")
	w.same(w.link("layers/top/parent"), "../../layers/base", "parent")
	w.mkdir("layers/top/images/app")
	w.mkdir("images/app/containers/web")
	w.mkdir("containers/empty")
	w.mkdir("images/bare")
	w.same(w.peer("layer", "-j", "top") != "", true, "the peers know the layer")
	for _, name := range []string{"web", "empty"} {
		id := strings.TrimSpace(w.read("containers/" + name + "/id"))
		if got := w.peer("container", name); !strings.Contains(got, "ID: "+id) {
			t.Errorf("the peers know container %s as\n%s", name, got)
		}
	}
	w.same(w.link("images/app/layers/00"), "../../../layers/base", "the base")
	w.same(w.link("images/app/layers/01"), "../../../layers/top", "the top")
	w.same(w.link("containers/web/image"), "../../images/app", "image")

	if err := w.mv("containers/web", "containers/api"); err != nil {
		t.Fatal(err)
	}
	w.same(w.read("containers/api/names"), "api\n", "names after mv")
	w.same(w.ls("images/app/containers"), []string{"api"}, "the image's containers")
	w.rmdir("containers/api")
	w.rmdir("containers/empty")
	w.rmdir("images/bare")
	w.rmdir("images/app")
	w.same(w.peer("layers"), "", "layers that an image's rmdir left")
	w.same(w.ls("layers"), []string{"by-digest", "by-id", "by-name"}, "ls layers")
}

func TestMkdirByID(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	id := strings.Repeat("0123456789abcdef", 4)
	for _, kind := range []string{"layers", "images", "containers"} {
		w.mkdir(kind + "/" + id)
		w.same(w.read(kind+"/"+id+"/id"), id+"\n", "the ID")
		w.same(w.read(kind+"/"+id+"/names"), "", "no names")
		w.is(fsview.Mkdir(w.ctx, w.fs.Root(), kind+"/"+id), "EEXIST", "the same ID again")
		if err := w.mv(kind+"/"+id, kind+"/first"); err != nil {
			t.Fatal(err)
		}
		w.same(w.link(kind+"/"+id), "first", "the ID is a symlink once there is a name")
		w.same(w.link(kind+"/by-id/"+id[:5]), "../../"+kind+"/first", "a prefix below by-id")
		_, err := fsview.Walk(w.ctx, w.fs.Root(), kind+"/"+id[:5], false)
		w.is(err, "ENOENT", "a prefix elsewhere")
		w.is(w.mv(kind+"/first", kind+"/"+strings.Repeat("f", 64)), "EINVAL", "mv to an ID")
		w.is(w.mv(kind+"/"+id, kind+"/second"), "EINVAL", "mv of the ID's symlink")
		w.is(fsview.Rmdir(w.ctx, w.fs.Root(), kind+"/"+id), "ENOTDIR", "rmdir of the ID's symlink")
	}
}

func TestBadNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	for name, want := range map[string]string{
		"%zz": "EINVAL", "%": "EINVAL", "a%0Ab": "EINVAL", " a": "EINVAL", "a%00": "EINVAL", "\xff": "EINVAL",
		"by-id": "EEXIST", strings.Repeat("x", 256): "ENAMETOOLONG",
	} {
		for _, kind := range []string{"layers", "images", "containers"} {
			w.is(fsview.Mkdir(w.ctx, w.fs.Root(), kind+"/"+name), want, fmt.Sprintf("mkdir %s/%q", kind, name))
		}
	}
	for _, dir := range []string{"", "config", "layers/by-id", "images/by-digest", "containers/by-id"} {
		w.is(fsview.Mkdir(w.ctx, w.fs.Root(), dir+"/x"), "EPERM", "mkdir "+dir+"/x")
	}
	w.same(w.peer("layers")+w.peer("images")+w.peer("containers"), "", "what bad names made")
}

func TestDuplicates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("containers/a")
	w.mkdir("containers/b")
	if err := w.ln("../a", "containers/by-name/other"); err != nil {
		t.Fatal(err)
	}
	root := w.fs.Root()
	w.is(fsview.Mkdir(w.ctx, root, "containers/a"), "EEXIST", "mkdir of an entry")
	w.is(fsview.Mkdir(w.ctx, root, "containers/other"), "EEXIST", "mkdir of another name")
	w.is(w.mv("containers/b", "containers/a"), "EEXIST", "mv onto an entry")
	w.is(w.mv("containers/b", "containers/other"), "EEXIST", "mv onto another name")
	w.is(w.ln("b", "containers/by-name/a"), "EEXIST", "ln onto a name")
	// The store refuses too, when the kernel's look-up was too early to know.
	d, err := fsview.Walk(w.ctx, root, "containers", true)
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.(vnode.Mkdirer).Mkdir(w.ctx, "other", 0o755)
	w.is(err, "EEXIST", "mkdir that raced")
	// Writing names moves a name, as the library does.
	if err := w.write("containers/b/names", "b\nother\n"); err != nil {
		t.Fatal(err)
	}
	w.same(w.read("containers/a/names"), "a\n", "who lost the name")
	w.same(w.ls("containers"), []string{"a", "by-id", "by-name", "other"}, "ls: the oldest name of b is other now")
}

// TestNewNamesMoveNothing: tagging an image leaves its entry.
func TestNewNamesMoveNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("images/app")
	if err := w.add("images/app/names", "docker.io/library/app:2\n"); err != nil {
		t.Fatal(err)
	}
	w.same(w.read("images/app/names"), "docker.io/library/app:2\napp\n", "names")
	w.same(w.link("images/docker.io%2Flibrary%2Fapp:2"), "app", "another name")
	w.same(w.link("images/by-name/docker.io/library/app:2"), "../../../../images/app", "by-name")
	if err := w.mv("images/app", "images/docker.io%2Flibrary%2Fapp:1"); err != nil {
		t.Fatal(err)
	}
	w.same(w.ls("images"), []string{"by-digest", "by-id", "by-name", "ctl", "docker.io%2Flibrary%2Fapp:1", "import"}, "the entry after mv")
	w.same(w.read("images/by-name/docker.io/library/app:2/names"), "docker.io/library/app:2\ndocker.io/library/app:1\n", "mv keeps the place")
	w.same(w.read("images/by-name/docker.io/library/app:1/names-history") != "", true, "names-history")
	// mv of another name's symlink renames that name.
	if err := w.mv("images/docker.io%2Flibrary%2Fapp:2", "images/latest"); err != nil {
		t.Fatal(err)
	}
	w.same(w.read("images/latest/names"), "latest\ndocker.io/library/app:1\n", "mv of a symlink")
}

func TestByName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("containers/x")
	root := w.fs.Root()
	ln := func(name string) {
		t.Helper()
		if err := w.ln("../../containers/x", "containers/by-name/"+name); err != nil {
			t.Fatalf("ln %s: %v", name, err)
		}
	}
	ln("web")
	ln("web%2F1")
	w.same(w.ls("containers/by-name"), []string{"web", "web%2F1", "x"}, "web/1 cannot nest beside web")
	w.mkdir("containers/by-name/team")
	w.mkdir("containers/by-name/team/a")
	w.is(fsview.Rmdir(w.ctx, root, "containers/by-name/team"), "ENOTEMPTY", "rmdir of a folder with a folder")
	ln("team/a/b")
	w.same(w.link("containers/by-name/team/a/b"), "../../../../containers/x", "a nested name")
	w.same(w.link("containers/by-name/team%2Fa%2Fb"), "../../containers/x", "the same in one component")
	w.is(fsview.Rmdir(w.ctx, root, "containers/by-name/team/a"), "ENOTEMPTY", "rmdir of a folder with a name")
	w.same(slices.Sorted(slices.Values(strings.Fields(w.peer("get-names", "x")))), []string{"team/a/b", "web", "web/1", "x"}, "what the peers see")
	if err := w.rm("containers/by-name/web"); err != nil {
		t.Fatal(err)
	}
	w.same(w.ls("containers/by-name"), []string{"team", "web", "x"}, "now web/1 nests")
	if err := w.mv("containers/by-name/web/1", "containers/by-name/team/2"); err != nil {
		t.Fatal(err)
	}
	w.is(w.mv("containers/by-name/team/2", "images/by-name/q"), "EINVAL", "mv to another kind")
	w.is(w.mv("containers/by-name/team", "containers/by-name/crew"), "EINVAL", "mv of a folder")
	w.is(w.ln("nothing", "containers/by-name/q"), "ENOENT", "ln to nothing")
	w.is(w.ln("../x", "containers/q"), "EPERM", "ln outside by-name")
	if err := w.rm("containers/by-name/team/2"); err != nil {
		t.Fatal(err)
	}
	if err := w.rm("containers/by-name/team/a/b"); err != nil {
		t.Fatal(err)
	}
	w.same(w.ls("containers/by-name/team"), []string{"a"}, "a folder made by hand stays")
	w.rmdir("containers/by-name/team/a")
	w.rmdir("containers/by-name/team")
	w.same(w.ls("containers/by-name"), []string{"x"}, "by-name at the end")
}

// TestOddNames: names that other programs gave are shown, reachable and kept.
func TestOddNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	hex := strings.Repeat("cd", 32)
	long := strings.Repeat("long/", 60) + "x"
	for name, entry := range map[string]string{
		"a/b:c": "a%2Fb:c", "50%": "50%25", "by-id": "%62y-id", "import": "%69mport", "ctl": "%63tl", "..": "%2E.", ".": "%2E",
		"tab\there": "tab%09here", hex: "%63" + hex[1:], "a//b": "a%2F%2Fb", "naïve": "naïve",
	} {
		id := strings.Fields(w.peer("create-image", "-n", name, ""))[0]
		w.same(strings.TrimSpace(w.read("images/"+entry+"/id")), id, "the entry of "+name)
		got, err := fsview.List(w.ctx, w.fs.Root(), "images")
		if err != nil || !slices.ContainsFunc(got, func(e fsview.Entry) bool { return e.Name == entry }) {
			t.Errorf("%q is not listed as %q (%v)", name, entry, err)
		}
		names := w.read("images/" + entry + "/names")
		if err := w.write("images/"+entry+"/names", names); err != nil {
			t.Errorf("%q: names does not take what it shows: %v", name, err)
		}
		w.same(w.read("images/"+entry+"/names"), names, "names after writing them back")
		w.rmdir("images/" + entry)
	}
	id := strings.Fields(w.peer("create-image", "-n", long, ""))[0]
	w.same(strings.TrimSpace(w.read("images/"+id+"/id")), id, "a name too long for an entry")
	w.same(w.link("images/by-name/"+long), strings.Repeat("../", 62)+"images/"+id, "by-name of a long name")
}

// TestNameThatIsAnID: an object's name that is another's ID does not hide it.
func TestNameThatIsAnID(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.peer("create-layer", "-i", "odd")
	other := strings.Fields(w.peer("create-layer", "-n", "odd"))[0]
	w.same(w.read("layers/odd/id"), "odd\n", "the ID wins")
	w.same(strings.TrimSpace(w.read("layers/%6Fdd/id")), other, "the name is encoded")
}

func TestRmdirInUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/base")
	w.mkdir("layers/base/children/top")
	w.mkdir("layers/top/images/app")
	w.mkdir("images/app/containers/web")
	root := w.fs.Root()
	for path, c := range map[string][2]string{
		"layers/base": {"ENOTEMPTY", "layer top"},
		"layers/top":  {"ENOTEMPTY", "image app"},
		"images/app":  {"EBUSY", "container web"},
	} {
		err := fsview.Rmdir(w.ctx, root, path)
		w.is(err, c[0], "rmdir "+path)
		if err != nil && !strings.Contains(err.Error(), c[1]) {
			t.Errorf("rmdir %s does not say who uses it: %v", path, err)
		}
	}
	w.same(w.ls("images/app/used-by"), []string{"container:web"}, "used-by")
	w.same(w.link("images/app/used-by/container:web"), "../../../containers/web", "used-by's target")
	for _, p := range []string{"images/app/bigdata", "images/app/containers", "layers/top/digest", "containers/web/used-by"} {
		w.is(fsview.Rmdir(w.ctx, root, p), "EPERM", "rmdir "+p)
	}
	w.is(w.rm("containers/web/id"), "EPERM", "rm of a file of an object")
	w.is(w.rm("containers/web/layer"), "EPERM", "rm of a link of an object")
	w.is(w.rm("images/app/bigdata/manifest"), "EPERM", "rm of a data item")
	w.is(w.mv("containers/web/names", "containers/web/x"), "EINVAL", "mv inside an object")
	w.is(w.mv("containers/web", "images/web"), "EINVAL", "mv to another kind")
	w.is(w.mv("containers/web", "x"), "EINVAL", "mv out of the kind")
}

// TestBigData: byte for byte what the peers store, both ways.
func TestBigData(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("images/app")
	w.mkdir("containers/web")
	w.mkdir("layers/base")
	dir := t.TempDir()
	for n, key := range []string{"plain", "with/slash", "sha256:abc", "50%", "Ü mlaut", "A"} {
		entry := strings.NewReplacer("%", "%25", "/", "%2F").Replace(key)
		data := strings.Repeat("\x00\xff data\n", n*1000)
		for _, obj := range []string{"images/app", "containers/web", "layers/base"} {
			if err := w.write(obj+"/bigdata/"+entry, data); err != nil {
				t.Fatalf("writing %s/bigdata/%s: %v", obj, entry, err)
			}
			kind := strings.TrimSuffix(strings.SplitN(obj, "/", 2)[0], "s")
			out := filepath.Join(dir, "out")
			w.peer("get-"+kind+"-data", "-f", out, filepath.Base(obj), key)
			got, err := os.ReadFile(out)
			if err != nil || string(got) != data {
				t.Errorf("%s %q: the peers read %d bytes, %v, want %d", obj, key, len(got), err, len(data))
			}
			w.same(w.read(obj+"/bigdata/"+entry), data, "what we read")
		}
	}
	file := filepath.Join(dir, "in")
	if err := os.WriteFile(file, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.peer("set-image-data", "-f", file, "app", "their/key")
	w.same(w.read("images/app/bigdata/their%2Fkey"), "theirs", "an item of the peers")
	for entry, want := range map[string]string{"x%2F": "EINVAL", "%2E": "EINVAL", "%2E.": "EINVAL", "%": "EINVAL"} {
		w.is(w.write("images/app/bigdata/"+entry, "x"), want, "the key "+entry)
	}
	_, err := w.readErr("images/app/bigdata/nothing")
	w.is(err, "ENOENT", "a key that is not there")
	w.is(w.write("images/app/bigdata/empty", ""), "OK", "touch of a new item")
	w.same(w.read("images/app/bigdata/empty"), "", "an empty item")
}

func TestBigDataLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs", func(o *fsview.Options) { o.BigDataLimit = 1000 })
	w.mkdir("images/app")
	w.is(w.write("images/app/bigdata/k", strings.Repeat("x", 1000)), "OK", "as much as the limit")
	w.is(w.write("images/app/bigdata/k", strings.Repeat("y", 1001)), "EFBIG", "a byte more")
	w.same(w.read("images/app/bigdata/k"), strings.Repeat("x", 1000), "what is left")
	w.is(w.write("images/app/bigdata/new", strings.Repeat("y", 1001)), "EFBIG", "a new item too large")
	w.same(slices.Contains(w.ls("images/app/bigdata"), "new"), false, "a new item that failed is there")
}

// TestNewImageIsWhole: an image made by mkdir has a configuration and a
// manifest that fit each other and its layers.
func TestNewImageIsWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/base")
	if err := w.write("layers/base/diff.tar", string(tarOf(t, "etc/", "etc/f=x"))); err != nil {
		t.Fatal(err)
	}
	w.mkdir("layers/base/children/top")
	w.mkdir("layers/top/images/app")
	var m struct {
		Config struct{ Digest string }
		Layers []struct{ Digest string }
	}
	if err := json.Unmarshal([]byte(w.read("images/app/manifest")), &m); err != nil {
		t.Fatal(err)
	}
	var c struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal([]byte(w.read("images/app/config")), &c); err != nil {
		t.Fatal(err)
	}
	w.same(len(c.RootFS.DiffIDs), 2, "diff IDs")
	w.same(c.RootFS.DiffIDs[0], strings.TrimSpace(w.read("layers/base/digest/uncompressed")), "the base's diff ID")
	w.same(w.read("images/app/config"), w.read("images/app/bigdata/"+m.Config.Digest), "config")
	w.same(strings.Count(w.read("images/app/history"), "\n"), 2, "lines of history")
	d := strings.TrimSpace(w.read("images/app/digest"))
	w.same(w.link("images/by-digest/"+d), "../../images/app", "by-digest")
	w.same(w.peer("images-by-digest", "-q", d), strings.TrimSpace(w.read("images/app/id")), "the peers find it by digest")
}

// TestInterrupted: an operation that a signal interrupts is done, or not done
// at all and says so.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	root := w.fs.Root()
	for i := range 40 {
		ctx, cancel := context.WithCancel(w.ctx)
		stop := time.AfterFunc(time.Duration(i)*250*time.Microsecond, cancel)
		path := fmt.Sprintf("containers/c%d", i)
		err := fsview.Mkdir(ctx, root, path)
		stop.Stop()
		cancel()
		_, there := fsview.Walk(w.ctx, root, path, true)
		if (err == nil) != (there == nil) {
			t.Errorf("mkdir %s said %v, but a look-up says %v", path, err, there)
		}
	}
	w.nothingStaged()
}

// TestChangesOfWhatIsGone: who still holds the directory of an object that was
// removed meanwhile is told so, not that its files are fixed.
func TestChangesOfWhatIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("containers/c")
	w.mkdir("drafts/d")
	for _, path := range []string{"containers/c", "drafts/d"} {
		n, err := fsview.Walk(w.ctx, w.fs.Root(), path, true)
		if err != nil {
			t.Fatal(err)
		}
		w.rmdir(path)
		_, _, err = n.(vnode.Creator).Create(w.ctx, "ctl", os.O_WRONLY, 0o644)
		w.is(err, "ENOENT", "creating a file in "+path)
		_, err = n.(vnode.Mkdirer).Mkdir(w.ctx, "x", 0o755)
		w.is(err, "ENOENT", "mkdir in "+path)
	}
}

// TestImageNames: a name that is no reference is refused wherever a name is
// given to an image, since podman would list no image at all; one that is on
// disk already is kept.
func TestImageNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "overlay")
	w.mkdir("images/app")
	for _, bad := range []string{"MyApp", "-x", "x:y:z", "..%2F..", "A B", "a%2F%2Fb", "app:", "x@sha256:1"} {
		w.is(fsview.Mkdir(w.ctx, w.fs.Root(), "images/"+bad), "EINVAL", "mkdir images/"+bad)
		w.is(w.mv("images/app", "images/"+bad), "EINVAL", "mv to images/"+bad)
		w.mkdir("drafts/d")
		w.is(w.mv("drafts/d", "images/"+bad), "EINVAL", "committing a draft as "+bad)
		w.rmdir("drafts/d")
	}
	w.is(w.write("images/app/names", "Bad\n"), "EINVAL", "writing names")
	w.is(w.add("images/app/names", "Bad\n"), "EINVAL", "appending to names")
	w.is(w.ln("app", "images/by-name/Bad"), "EINVAL", "ln in by-name")
	w.podman("images")
	w.peer("add-names", "-n", "Old", "app")
	names := w.read("images/app/names")
	if err := w.write("images/app/names", names+"localhost:5000/a/b-c__d.e:T_1@sha256:"+strings.Repeat("0", 64)+"\n"); err != nil {
		t.Error(err)
	}
	w.mkdir("containers/MyApp") // only images have such names
}

// TestSpoiltDraft: a draft is not committed while a write to one of its files
// has failed; writing the file again mends it.
func TestSpoiltDraft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("drafts/d")
	archive := tarOf(t, "a=b")
	w.is(w.write("drafts/d/diff.tar", string(archive[:700])), "EBADMSG", "a stream cut short")
	w.is(w.mv("drafts/d", "layers/x"), "EINVAL", "committing what is cut short")
	if err := w.write("drafts/d/diff.tar", string(archive)); err != nil {
		t.Fatal(err)
	}
	w.is(w.write("drafts/d/parent", "nobody\n"), "ENOENT", "an unknown parent")
	w.is(w.mv("drafts/d", "layers/x"), "EINVAL", "committing without the parent that was meant")
	w.rmdir("drafts/d")
	w.mkdir("drafts/d")
	w.is(w.write("drafts/d/parent", "nobody\n"), "ENOENT", "an unknown parent")
	if err := w.write("drafts/d/parent", ""); err != nil {
		t.Fatal(err)
	}
	if err := w.write("drafts/d/diff.tar", string(archive)); err != nil {
		t.Fatal(err)
	}
	if err := w.mv("drafts/d", "layers/x"); err != nil {
		t.Error(err)
	}
	w.same(w.read("layers/x/tree/a"), "b", "the layer's file")
	w.nothingStaged()
}
