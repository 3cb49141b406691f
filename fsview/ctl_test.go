package fsview_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/fsview"
)

// TestCtlShowsItsVerbs: each ctl lists its verbs, one line each, and what it
// shows can be written to it.
func TestCtlShowsItsVerbs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/l")
	w.mkdir("images/i")
	w.mkdir("containers/c")
	for path, verbs := range map[string][]string{
		"ctl": {"gc", "check [quick|full]", "repair [force]", "dedup", "shutdown [force]", "wipe yes"}, "layers/l/ctl": {"mount [OPTION,...]", "umount [force]", "forget-data KEY"},
		"images/i/ctl": {"forget-data KEY"}, "containers/c/ctl": {"mount [OPTION,...]", "umount [force]", "forget-data KEY", "delete force"},
	} {
		text := w.read(path)
		for _, v := range verbs {
			if !strings.Contains(text, "# "+v+" ") {
				t.Errorf("%s does not list %s:\n%s", path, v, text)
			}
		}
		w.is(w.write(path, text), "OK", "writing what "+path+" shows")
		for _, bad := range []string{"sunny\n", "forget-data\n", "delete\n", "umount now\n", "mount loud\n", "check quick full\n", "check x\n", "gc now\n", "wipe\n", "wipe no\n"} {
			w.is(w.write(path, bad), "EINVAL", path+": "+bad)
		}
	}
	w.same(w.ls("containers"), []string{"by-id", "by-name", "c"}, "containers")
}

func TestForgetData(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/l")
	w.mkdir("images/i")
	w.mkdir("containers/c")
	for _, obj := range []string{"layers/l", "images/i", "containers/c"} {
		for _, key := range []string{"plain", "a%23b", "with space"} {
			if err := w.write(obj+"/bigdata/"+key, "v"); err != nil {
				t.Fatal(err)
			}
			w.is(w.write(obj+"/ctl", "forget-data "+key+"\n"), "OK", "forget-data "+key)
			w.same(slices.Contains(w.ls(obj+"/bigdata"), key), false, key+" is listed")
			w.is(w.write(obj+"/ctl", "forget-data "+key+"\n"), "ENOENT", "forget-data "+key+" again")
		}
	}
	w.same(strings.Contains(w.peer("list-container-data", "c"), "plain"), false, "the peers' list")
	if err := w.write("containers/c/bigdata/open", "v"); err != nil {
		t.Fatal(err)
	}
	f := w.open("containers/c/bigdata/open", trun)
	f.ok(f.write("x", 0))
	w.is(w.write("containers/c/ctl", "forget-data open\n"), "EBUSY", "forget-data of an open item")
	f.ok(f.flush(), f.release())
}

// TestManagedContainers: podman's own are only deleted by force.
func TestManagedContainers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "overlay")
	w.mkdir("containers/c")
	if err := w.write("containers/c/metadata", `{"image-name":"x","image-id":"y","name":"c","created-at":1795641857}`); err != nil {
		t.Fatal(err)
	}
	w.is(fsview.Rmdir(w.ctx, w.fs.Root(), "containers/c"), "EBUSY", "rmdir of podman's container")
	w.same(strings.Contains(w.read("containers/c/error"), "podman"), true, "the sentence names podman")
	w.ls("containers/c/merged")
	w.is(w.write("containers/c/ctl", "delete force\n"), "OK", "delete force, mounted")
	w.same(w.peer("containers")+w.peer("layers"), "", "what is left")
}

func TestMountOptions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "overlay")
	w.mkdir("layers/base")
	w.mkdir("layers/base/children/top")
	w.is(w.write("layers/base/ctl", "mount\n"), "EROFS", "mounting a parent")
	w.is(w.write("layers/base/ctl", "mount ro,noexec\n"), "OK", "mounting a parent read-only")
	w.is(w.write("layers/base/ctl", "mount nodev\n"), "EBUSY", "other options while mounted")
	if s := w.read("layers/base/error"); !strings.HasPrefix(s, "/layers/base is mounted already: ") {
		t.Errorf("error says %q", s)
	}
	w.same(w.ls("layers/base/merged"), []string{}, "ls merged")
	w.is(w.write("layers/base/merged/x", "y"), "EROFS", "writing below a read-only merged/")
	w.is(w.write("layers/base/ctl", "umount\n"), "OK", "umount")
	w.same(w.count("layers/base"), "0", "count")
}

// TestStoreVerbs: gc and check, and what progress says of them.
func TestStoreVerbs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/l")
	if err := w.write("layers/l/diff.tar", string(tarOf(t, "a=hello"))); err != nil {
		t.Fatal(err)
	}
	w.mkdir("layers/l/images/i")
	w.same(w.read("progress"), "", "progress of nothing")
	leftover := filepath.Join(w.root, "vfs-images", ".tmp-images.json123")
	if err := os.WriteFile(leftover, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.is(w.write("ctl", "gc\ncheck quick\ncheck\ncheck full\n"), "OK", "gc and checks of a sound store")
	if _, err := os.Stat(leftover); !os.IsNotExist(err) {
		t.Errorf("gc left %s", leftover)
	}
	for i, want := range []string{"check-full done ", "check done ", "check-quick done ", "gc done "} {
		if got := strings.Split(w.read("progress"), "\n")[i]; !strings.HasPrefix(got, want) {
			t.Errorf("progress: line %d is %q, want %q…", i, got, want)
		}
	}
	id := strings.TrimSpace(w.read("layers/l/id"))
	if err := os.WriteFile(filepath.Join(w.root, "vfs/dir", id, "a"), []byte("HELLO"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.is(w.write("ctl", "check quick\n"), "OK", "a quick check reads no content")
	w.is(w.write("ctl", "check full\n"), "EUCLEAN", "a full one does")
	text := w.read("progress")
	if !strings.HasPrefix(text, "check-full failed ") || !strings.Contains(text, "\nfinding layer "+id+": ") {
		t.Errorf("progress:\n%s", text)
	}
	if log := w.read("error_log"); !strings.Contains(log, "EUCLEAN /ctl: ") {
		t.Errorf("error_log:\n%s", log)
	}
}

// TestRepairAndWipe: what a check finds is mended or removed, and wipe deletes
// all there is.
func TestRepairAndWipe(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "overlay")
	w.mkdir("layers/l")
	if err := w.write("layers/l/diff.tar", string(tarOf(t, "a=hello"))); err != nil {
		t.Fatal(err)
	}
	w.mkdir("layers/l/images/i")
	w.mkdir("images/i/containers/c")
	id := strings.TrimSpace(w.read("containers/c/id"))
	if err := w.write("containers/c/bigdata/k", "v"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(w.root, "overlay-containers", id, "k")); err != nil {
		t.Fatal(err)
	}
	w.is(w.write("ctl", "check\n"), "EUCLEAN", "check")
	err := w.write("containers/c/ctl", "repair force\n")
	w.is(err, "OK", "repair")
	if text := w.read("progress"); !strings.HasPrefix(text, "repair done ") || !strings.Contains(text, "\nfinding container "+id+": ") {
		t.Errorf("progress:\n%s", text)
	}
	for _, state := range []string{"running", "done"} {
		if log := w.read("events"); !strings.Contains(log, `"kind":"container","op":"repair","id":"`+id+`","state":"`+state+`"`) {
			t.Errorf("events do not say of whom the repair is %s:\n%s", state, log)
		}
	}
	w.is(w.write("ctl", "check\n"), "OK", "check after the repair")
	w.mkdir("images/i/containers/again")
	w.ls("containers/again/merged")
	w.is(w.write("ctl", "shutdown\n"), "EBUSY", "shutdown while something is mounted")
	w.is(w.write("ctl", "shutdown force\n"), "OK", "shutdown force")
	w.same(w.count("containers/again"), "0", "count")
	w.same(w.ls("containers/again/merged"), []string{"a"}, "the store goes on")
	w.is(w.write("ctl", "wipe yes\n"), "OK", "wipe")
	w.same(w.peer("layers")+w.peer("images")+w.peer("containers"), "", "what is left")
}
