package mountprogram

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

var binDir string

func TestMain(m *testing.M) {
	if err := fusetest.Apart(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "plyfs-mp-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "fuse-overlay"), "github.com/plyfs/plyfs/cmd/fuse-overlay")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, berr := build.CombinedOutput(); berr != nil {
		err = errors.Join(err, fmt.Errorf("build fuse-overlay: %w\n%s", berr, out))
	}
	binDir = dir
	code := 1
	if err == nil {
		code = fusetest.Main(m)
	}
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// ours is the program under test, or what PLYFS_FUSE_OVERLAY names.
func ours() string {
	if p := os.Getenv("PLYFS_FUSE_OVERLAY"); p != "" {
		return p
	}
	return filepath.Join(binDir, "fuse-overlay")
}

func need(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("these tests run podman as root, and as a user that root prepares; run them as root")
	}
	for _, p := range []string{"podman", "buildah", "runc", "busybox"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed: %v", p, err)
		}
	}
}

// folder makes a folder with a short name: podman refuses a run root of over
// 50 characters. Whatever is left mounted below it is unmounted at the end.
func folder(t *testing.T, uid int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "p")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		data, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Error(err)
		}
		lines := strings.Split(string(data), "\n")
		slices.Reverse(lines)
		for _, l := range lines {
			if f := strings.Fields(l); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
				// podman's private bind mount of the driver's folder.
				if err := unix.Unmount(f[4], unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, uid, uid)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// accept reads a run's checks and fails t with those that failed, but for what
// is known.
func accept(t *testing.T, r fusetest.Result, known map[string]string) {
	t.Helper()
	passed := 0
	for _, line := range strings.Split(r.Out, "\n") {
		if strings.HasPrefix(line, "ok ") {
			passed++
			if name := line[3:]; known[name] != "" {
				t.Errorf("%s passes, and is listed as known to fail: %s", name, known[name])
			}
			continue
		}
		if fail, ok := strings.CutPrefix(line, "FAIL "); ok {
			name, _, _ := strings.Cut(fail, ":")
			if known[name] == "" {
				t.Errorf("%s", strings.ReplaceAll(fail, "~", "\n\t"))
			}
		}
	}
	t.Logf("%d checks passed", passed)
	if passed < 20 || r.Status != 0 {
		t.Errorf("status %d\n%s\n%s", r.Status, r.Out, r.Err)
	}
}

// asRoot runs the script and returns the listings that containers gave.
func asRoot(t *testing.T, program string, known map[string]string) string {
	t.Helper()
	dir := folder(t, 0)
	script, err := os.ReadFile("testdata/acceptance.sh")
	if err != nil {
		t.Fatal(err)
	}
	accept(t, fusetest.Script(t, string(script), dir, program), known)
	return listing(t, dir)
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(dir + "/listing")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func asUser(t *testing.T, program string, known map[string]string) string {
	t.Helper()
	dir := folder(t, fusetest.UserID)
	script, err := os.ReadFile("testdata/acceptance.sh")
	if err != nil {
		t.Fatal(err)
	}
	accept(t, fusetest.AsUser(t, fusetest.User{}, string(script), dir, program), known)
	return listing(t, dir)
}

// knownPeer: podman 4.3.1 as root gives lower layers on ID-mapped mounts and the
// maps too; fuse-overlayfs 1.10 applies both.
var knownPeer = map[string]string{
	"userns":           "runc may not open the target of a mount",
	"userns-commit":    "the same",
	"userns-committed": "there is no such image",
}

// knownKernel: podman 4.3.1 commits the owners that ID-mapped layers show.
var knownKernel = map[string]string{"userns-committed": "100000:100000 for 0:0"}

// TestMountProgram runs the script with ours, as root and as a user, and
// compares what containers see with what they see on the kernel's overlay.
func TestMountProgram(t *testing.T) {
	need(t)
	var kernel string
	t.Run("kernel", func(t *testing.T) { kernel = asRoot(t, "", knownKernel) })
	t.Run("root", func(t *testing.T) { compare(t, kernel, asRoot(t, ours(), nil)) })
	t.Run("user", func(t *testing.T) { compare(t, kernel, asUser(t, ours(), nil)) })
}

func compare(t *testing.T, want, got string) {
	t.Helper()
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		if i >= len(w) || i >= len(g) || w[i] != g[i] {
			t.Errorf("the contents differ from those on the kernel's overlay:\nkernel %q\n  ours %q", w[min(i, len(w)):min(i+3, len(w))], g[min(i, len(g)):min(i+3, len(g))])
			return
		}
	}
}

// TestPeer proves the script: fuse-overlayfs passes it.
func TestPeer(t *testing.T) {
	need(t)
	if os.Getenv("PLYFS_LONG") == "" {
		t.Skip("runs with PLYFS_LONG=1: it only proves the script")
	}
	peer, err := exec.LookPath("fuse-overlayfs")
	if err != nil {
		t.Skipf("fuse-overlayfs is not installed: %v", err)
	}
	t.Run("root", func(t *testing.T) { asRoot(t, peer, knownPeer) })
	t.Run("user", func(t *testing.T) { asUser(t, peer, nil) })
}
