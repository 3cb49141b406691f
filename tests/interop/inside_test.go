package interop

import (
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestInsideContainer runs the program, which is linked statically, in a
// container that has /dev/fuse and may mount: a store made there is shown
// there, and outside it is the peers' as well.
func TestInsideContainer(t *testing.T) {
	t.Parallel()
	e := newEnv(t, "overlay", "buildah", "skopeo", "podman", "runc", "setfattr", "setfacl")
	e.makeApp()
	bin, err := plyfsBinary()
	if err != nil {
		t.Fatal(err)
	}
	if f, err := elf.Open(bin); err != nil {
		t.Fatal(err)
	} else if libs, err := f.ImportedLibraries(); err != nil || f.Close() != nil || len(libs) > 0 {
		t.Skipf("%s needs the libraries %q (%v), which the container does not have: build it with CGO_ENABLED=0", bin, libs, err)
	}
	inner := filepath.Join(e.dir, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	const script = `set -e; cd /s
/plyfs mount --create --root /s/root --runroot /s/run --storage-driver vfs /tmp
/bin/busybox mkdir /tmp/layers/base
/bin/busybox mkdir /tmp/layers/base/images/app
echo text > /tmp/images/app/metadata
/bin/busybox cat /tmp/images/app/metadata
/plyfs umount /tmp`
	out := e.podman("run", "--rm", "--network=none", "--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096",
		"--device", "/dev/fuse", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
		"-v", bin+":/plyfs:ro", "-v", inner+":/s", app, "/bin/busybox", "sh", "-c", script)
	if !strings.Contains(out, "text\n") {
		t.Errorf("in the container: %q", out)
	}
	list := e.run("containers-storage", "--graph", inner+"/root", "--run", inner+"/run", "--storage-driver", "vfs", "images")
	if !strings.Contains(list, "name: app") {
		t.Errorf("the peers see %q", list)
	}
}
