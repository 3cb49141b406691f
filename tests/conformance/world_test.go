package conformance

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// world makes the tree that a case works on.
type world struct {
	name   string
	layers int // lower layers; 0: a plain directory
	// mount mounts e's layers at e.root and returns what unmounts; nil in a
	// plain directory.
	mount func(e *env) (end func())
	// upper returns a new folder for the upper; nil: beside the layers.
	upper func(e *env) string
	// lowers returns a new folder for the lower layers; nil: beside the tree.
	lowers func(e *env) string
	// prepared is called once, when the case's lower layers are filled.
	prepared func(e *env)
	// noXattrs: the lower layers' filesystem has no extended attributes.
	noXattrs bool
	// known are the cases that fail here, with what is wrong.
	known map[string]string
	// user: not the machine's root. ids: more IDs than 0 are there.
	user, oneID bool
}

// skip says why a case is not for this world; "" when it is.
func (w world) skip(x c) string {
	switch {
	case x.overlay && w.layers == 0:
		return "there are no layers in a plain directory"
	case x.root && w.user:
		return "needs the machine's root"
	case x.ids && w.oneID:
		return "there is only one ID here"
	}
	return ""
}

const (
	manyLayers = 9
	peerName   = "fuse-overlayfs"
)

// rootWorlds are those of the machine's root.
func rootWorlds(t *testing.T) []world {
	ws := []world{{name: "directory"}}
	// The others are there to prove the suite: a directory and one of the
	// kernel's are enough for that, unless there is time.
	most := 1
	if os.Getenv("PLYFS_LONG") != "" {
		most = manyLayers
	}
	for _, n := range []int{1, manyLayers} {
		if n <= most {
			ws = append(ws, world{name: fmt.Sprintf("kernel-%d", n), layers: n, mount: kernelMount, known: knownKernel})
		}
	}
	for _, p := range programs(t) {
		for _, n := range []int{1, manyLayers} {
			if most == 1 && p.name == peerName {
				continue
			}
			ws = append(ws, world{name: fmt.Sprintf("%s-%d", p.name, n), layers: n, mount: p.mount, known: p.known})
		}
	}
	return ws
}

// program is a mount program under test.
type program struct {
	name, path string
	known      map[string]string
}

// programs are fuse-overlayfs, where it is installed, and ours, or the one that
// PLYFS_FUSE_OVERLAY names.
func programs(t *testing.T) []program {
	t.Helper()
	var ps []program
	if path, err := exec.LookPath("fuse-overlayfs"); err == nil {
		ps = append(ps, program{peerName, path, knownPeer})
	} else {
		t.Logf("without fuse-overlayfs: %v", err)
	}
	path, err := ours()
	if err != nil {
		t.Fatal(err)
	}
	return append(ps, program{"fuse-overlay", path, knownOurs})
}

// ours is the program under test, built once.
var ours = sync.OnceValues(func() (string, error) {
	if p := os.Getenv("PLYFS_FUSE_OVERLAY"); p != "" {
		return p, nil
	}
	p := filepath.Join(binDir, "fuse-overlay")
	cmd := exec.Command("go", "build", "-o", p, "github.com/plyfs/plyfs/cmd/fuse-overlay")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build fuse-overlay: %w\n%s", err, out)
	}
	return p, os.Chmod(p, 0o755)
})

var binDir string

func TestMain(m *testing.M) {
	if fusetest.IsChild() {
		os.Exit(m.Run())
	}
	if err := fusetest.Apart(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "plyfs-conf-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binDir = dir
	races := filepath.Join(dir, "races")
	if err := logRaces(races); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := fusetest.Main(m)
	if found, err := racesIn(races); found != "" || err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: the race detector's reports: %v\n%s\n", err, found)
		code = 1
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func (p program) mount(e *env) func() {
	e.Helper()
	return p.mountWith(e, "")
}

// mountWith mounts with further options.
func (p program) mountWith(e *env, more string) func() {
	e.Helper()
	opts := "lowerdir=" + strings.Join(e.dirs, ":")
	if e.upper != "" {
		opts += ",upperdir=" + e.upper + ",workdir=" + e.work
	}
	if os.Geteuid() == 0 {
		opts += ",allow_other,default_permissions,suid,dev"
	}
	if more != "" {
		opts += "," + more
	}
	out, err := exec.Command(p.path, "-o", opts, e.root).CombinedOutput()
	if err != nil {
		e.Fatalf("%s -o %s: %v: %s", p.path, opts, err, out)
	}
	return func() {
		unmount(e.T, e.root)
		e.letGo()
	}
}

// letGo waits until the server of a mount that is gone has let go of the work directory, whose
// lock it has while it may write there.
func (e *env) letGo() {
	e.Helper()
	if e.upper == "" {
		return
	}
	fd, err := unix.Open(e.work, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	e.ok(err)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == nil || time.Now().After(end) {
			break
		}
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		e.Errorf("the server does not end: %v", err)
	}
}

// kernelMount mounts the kernel's overlay.
func kernelMount(e *env) func() {
	e.Helper()
	opts := "lowerdir=" + strings.Join(e.dirs, ":") + ",upperdir=" + e.upper + ",workdir=" + e.work + ",index=on,xino=on"
	if err := unix.Mount("overlay", e.root, "overlay", 0, opts); err != nil {
		e.Fatalf("overlay %s: %v", opts, err)
	}
	return func() { unmount(e.T, e.root) }
}

// kernelUserMount mounts the kernel's overlay in a user namespace.
func kernelUserMount(e *env) func() {
	e.Helper()
	opts := "lowerdir=" + strings.Join(e.dirs, ":") + ",upperdir=" + e.upper + ",workdir=" + e.work + ",userxattr"
	if err := unix.Mount("overlay", e.root, "overlay", 0, opts); err != nil {
		e.Skipf("no overlay in a user namespace here: %s: %v", opts, err)
	}
	return func() { unmount(e.T, e.root) }
}

// unmount unmounts; a server may still be finishing a request.
func unmount(t *testing.T, dir string) {
	t.Helper()
	var err error
	for range 200 {
		if os.Geteuid() == 0 {
			err = unix.Unmount(dir, 0)
		} else if out, rerr := exec.Command("fusermount3", "-u", dir).CombinedOutput(); rerr != nil {
			err = fmt.Errorf("%w: %s", errors.Join(rerr, unix.EBUSY), out)
		} else {
			err = nil
		}
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Errorf("unmount %s: %v", dir, err)
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	}
}

// need skips where root cannot mount.
func need(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("these tests make mounts as root; run them as root")
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
}
