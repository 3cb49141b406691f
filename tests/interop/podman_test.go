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
