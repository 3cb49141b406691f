package fsview_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// podman runs podman on the world's store.
func (w *world) podman(args ...string) string {
	w.t.Helper()
	path, err := exec.LookPath("podman")
	if err != nil {
		w.t.Skip("no podman here to look at the store with")
	}
	all := append([]string{"--root", w.root, "--runroot", w.run, "--storage-driver", w.driver,
		"--tmpdir", filepath.Join(filepath.Dir(w.root), "tmp"), "--cgroup-manager=cgroupfs", "--events-backend=file"}, args...)
	cmd := exec.Command(path, all...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		w.t.Fatalf("podman %s: %v\n%s%s", strings.Join(args, " "), err, &out, &errs)
	}
	return strings.TrimSpace(out.String())
}

// TestPodmanTakesOurs: podman lists, and does not choke on, everything that
// plain file operations make.
func TestPodmanTakesOurs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "overlay")
	w.mkdir("layers/base")
	if err := w.write("layers/base/diff.tar", string(tarOf(t, "etc/", "etc/f=x"))); err != nil {
		t.Fatal(err)
	}
	w.mkdir("layers/base/images/app")
	w.mkdir("layers/plain")
	w.mkdir("layers/plain/images/onplain") // its layer has no diff yet
	w.mkdir("images/localhost%2Fbare:1")
	w.mkdir("images/app/containers/web")
	w.mkdir("containers/empty")
	list := w.podman("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}")
	for _, name := range []string{"app", "onplain", "localhost%2Fbare:1"} {
		if id := strings.TrimSpace(w.read("images/" + name + "/id")); !strings.Contains(list, id) {
			t.Errorf("podman images does not list %s (%s):\n%s", name, id, list)
		}
	}
	ps := w.podman("ps", "-a", "--external", "--no-trunc", "--format", "{{.ID}} {{.Names}}")
	for _, name := range []string{"web", "empty"} {
		if id := strings.TrimSpace(w.read("containers/" + name + "/id")); !strings.Contains(ps, id) {
			t.Errorf("podman ps -a --external does not list %s (%s):\n%s", name, id, ps)
		}
	}
	if got := w.podman("image", "inspect", "--format", "{{.RootFS.Layers}}", "app"); !strings.Contains(got, strings.TrimSpace(w.read("layers/base/digest/uncompressed"))) {
		t.Errorf("podman image inspect shows the layers %s", got)
	}
	if got := w.podman("image", "inspect", "--format", "{{.RootFS.Layers}}", "onplain"); !strings.Contains(got, strings.TrimSpace(w.read("layers/plain/digest/uncompressed"))) {
		t.Errorf("podman image inspect shows the layers %s of an image on a layer without a diff", got)
	}
	w.podman("tag", "app", "localhost/tagged:1")
	// podman 4.3 puts the new name last, so the entry moves; the old path leads
	// to it.
	w.same(w.read("images/app/names"), "app\nlocalhost/tagged:1\n", "names after podman tag")
	w.same(w.link("images/app"), "localhost%2Ftagged:1", "the old entry after podman tag")
	w.rmdir("containers/web")
	w.podman("rmi", "localhost/tagged:1", "app")
	for _, name := range w.ls("layers") {
		if name == "base" {
			t.Error("podman rmi left the image's layer")
		}
	}
}
