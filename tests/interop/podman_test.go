package interop

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPodmansContainer: a container that podman manages is mounted by both at
// once, and deleted by podman, or by force.
func TestPodmansContainer(t *testing.T) {
	t.Parallel()
	e := newEnv(t, "overlay", "buildah", "skopeo", "podman", "runc", "setfattr", "setfacl")
	e.makeApp()
	mnt := e.mount()
	e.podman("create", "--name", "pc", "--network=none", app, "/bin/busybox", "true")
	pc := filepath.Join(mnt, "containers/pc")
	count := func(want string) {
		t.Helper()
		if got, _, _ := strings.Cut(e.read(pc, "mount"), "\n"); got != "count "+want {
			t.Errorf("mount says %q, want count %s", got, want)
		}
	}
	count("0")
	theirs := trim(e.podman("mount", "pc"))
	count("1")
	e.mustSh(mnt, "echo ours > $M/containers/pc/merged/ours")
	count("2")
	if got := e.read(theirs, "ours"); got != "ours\n" {
		t.Errorf("podman's mount shows %q", got)
	}
	e.must(os.WriteFile(filepath.Join(theirs, "theirs"), []byte("theirs\n"), 0o644))
	if got := e.read(pc, "merged/theirs"); got != "theirs\n" {
		t.Errorf("merged/ shows %q", got)
	}
	e.podman("umount", "pc")
	count("1")
	if got := e.read(pc, "merged/theirs"); got != "theirs\n" {
		t.Errorf("after podman's unmount merged/ shows %q", got)
	}
	e.mustSh(mnt, "echo umount > $M/containers/pc/ctl")
	count("0")
	theirs = trim(e.podman("mount", "pc"))
	if got := e.read(theirs, "ours") + e.read(theirs, "theirs"); got != "ours\ntheirs\n" {
		t.Errorf("mounted again it shows %q", got)
	}
	e.podman("umount", "pc")

	// rmdir leaves podman's containers to podman.
	if err := syscall.Rmdir(pc); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("rmdir of podman's container: %v, want EBUSY", err)
	}
	if s := e.read(pc, "error"); !strings.Contains(s, "podman") {
		t.Errorf("error says %q", s)
	}
	id := e.line(pc, "id")
	e.podman("rm", "pc")
	// What the kernel holds of the name goes before events show the deletion.
	for end := time.Now().Add(20 * time.Second); !strings.Contains(e.read(mnt, "events"), `"op":"delete","id":"`+id) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := os.Stat(pc); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after podman rm: %v", err)
	}
	e.podman("create", "--name", "forced", "--network=none", app, "/bin/busybox", "true")
	e.mustSh(mnt, "echo delete force > $M/containers/forced/ctl")
	if r := e.tryCS("exists", "-c", "forced"); r.code == 0 {
		t.Errorf("deleted by force it is still there: %s", r.out)
	}
	e.podman("images")
}

// TestPodmanRunsWhatIsMounted: one container whose merged/ is used before podman
// runs it, meanwhile, and afterwards, also from another mount namespace.
func TestPodmanRunsWhatIsMounted(t *testing.T) {
	t.Parallel()
	e := newEnv(t, "overlay", "buildah", "skopeo", "podman", "runc", "setfattr", "setfacl", "unshare", "pgrep")
	e.makeApp()
	mnt := e.mount()
	c := filepath.Join(mnt, "containers/run")
	e.podman("create", "--name", "run", "--network=none", "--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096",
		app, "/bin/busybox", "sleep", "1000")
	t.Cleanup(func() { // what podman starts when a container ends has the store open
		e.try(nil, "podman", append(e.podmanArgs(), "rm", "-f", "-t", "0", "run")...)
		e.sh(mnt, "for i in $(seq 600); do pgrep -f '([p]odman|[c]onmon) .*"+e.dir+"' >/dev/null || exit 0; sleep 0.1; done")
	})
	want := func(got, want, doing string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %q, want %q", doing, got, want)
		}
	}
	count := func(n, doing string) {
		t.Helper()
		got, _, _ := strings.Cut(e.read(c, "mount"), "\n")
		want(got, "count "+n, "mount "+doing)
	}
	inside := func(file string) string {
		t.Helper()
		return e.podman("exec", "run", "/bin/busybox", "cat", file)
	}

	e.mustSh(mnt, "echo before > $M/containers/run/merged/before")
	count("1", "before it runs")
	e.podman("start", "run")
	count("2", "while it runs")
	want(inside("/before"), "before\n", "what was written before it ran")
	e.mustSh(mnt, "echo during > $M/containers/run/merged/during")
	want(inside("/during"), "during\n", "what is written while it runs")
	e.podman("exec", "run", "/bin/busybox", "sh", "-c", "echo inside > /inside")
	want(e.read(c, "merged/inside"), "inside\n", "what it writes")
	want(e.mustSh(mnt, "$M/containers/run/merged/bin/busybox echo executed"), "executed\n", "a program in merged/")
	if err := syscall.Rmdir(c); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("rmdir of what runs: %v, want EBUSY", err)
	}

	elsewhere := []string{"-m", "--propagation", "private"}
	want(e.run("unshare", append(elsewhere, "cat", filepath.Join(c, "merged/inside"))...), "inside\n", "merged/ in another mount namespace")
	want(e.run("unshare", append(append(elsewhere, "podman"), append(e.podmanArgs(), "exec", "run", "/bin/busybox", "cat", "/during")...)...),
		"during\n", "podman in another mount namespace")

	e.mustSh(mnt, "echo umount > $M/containers/run/ctl")
	count("1", "when we let go of it")
	want(inside("/inside"), "inside\n", "it goes on")
	e.ls(c, "merged")
	e.podman("stop", "-t", "0", "run")
	count("1", "when it has ended")
	want(e.read(c, "merged/inside"), "inside\n", "merged/ of what has ended")
	e.podman("start", "run")
	e.podman("stop", "-t", "0", "run")
	e.mustSh(mnt, "echo after > $M/containers/run/merged/after; echo umount > $M/containers/run/ctl")
	count("0", "after all")
	e.podman("start", "run")
	want(inside("/before")+inside("/during")+inside("/inside")+inside("/after"), "before\nduring\ninside\nafter\n", "what it has when it runs again")
}

// TestPodmanArchives: podman loads what oci.tar and docker.tar give, and what it
// saves is taken, both with the same image ID.
func TestPodmanArchives(t *testing.T) {
	t.Parallel()
	e := newEnv(t, "overlay", "buildah", "skopeo", "podman", "setfattr", "setfacl")
	e.makeApp()
	mnt := e.mount()
	id := e.line(mnt, "images", appDir, "id")
	other := *e // podman's own store for what it loads, and ours for what it saves
	other.root, other.runroot = filepath.Join(e.dir, "o"), filepath.Join(e.dir, "p")
	other.podman("images")
	to := other.mount()
	for _, form := range []struct{ file, save string }{{"oci.tar", "oci-archive"}, {"docker.tar", "docker-archive"}} {
		archive := filepath.Join(e.dir, form.file)
		e.run("cp", filepath.Join(mnt, "images", appDir, form.file), archive)
		other.podman("load", "-q", "-i", archive)
		if got := trim(other.podman("images", "-q", "--no-trunc", app)); got != "sha256:"+id {
			t.Errorf("podman loads %s as %s, want %s", form.file, got, id)
		}
		other.podman("rmi", app)
		saved := filepath.Join(e.dir, form.save)
		e.podman("save", "-q", "--format", form.save, "-o", saved, app)
		e.run("cp", saved, filepath.Join(to, "images/import/x"))
		if got := other.line(to, "images", appDir, "id"); got != id {
			t.Errorf("%s of podman is taken as %s, want %s", form.save, got, id)
		}
		e.must(syscall.Rmdir(filepath.Join(to, "images", appDir)))
	}
}
