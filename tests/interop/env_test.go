package interop

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// plyfsBinary builds the program once a test run, or takes the one that
// PLYFS_BINARY names.
var plyfsBinary = sync.OnceValues(func() (string, error) {
	if p := os.Getenv("PLYFS_BINARY"); p != "" {
		return p, nil
	}
	p := filepath.Join(binDir, "plyfs")
	cmd := exec.Command("go", "build", "-o", p, "github.com/plyfs/plyfs/cmd/plyfs")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build plyfs: %w\n%s", err, out)
	}
	return p, nil
})

var binDir string

func TestMain(m *testing.M) {
	if err := fusetest.Apart(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "plyfs-interop-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // ordinary users run the program, too
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binDir = dir
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// env is a private store and the programs that work on it.
type env struct {
	testing.TB
	dir, root, runroot, driver string
}

func newEnv(t testing.TB, driver string, tools ...string) *env {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("these tests make stores and mounts as root; run them as root")
	}
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skipf("no FUSE here: %v", err)
	} else {
		_ = f.Close()
	}
	for _, tool := range append(tools, "containers-storage") {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: %v", tool, err)
		}
	}
	// podman refuses a run root of over 50 characters, as t.TempDir makes them.
	dir, err := os.MkdirTemp("", "plyfs-")
	if err != nil {
		t.Fatal(err)
	}
	e := &env{TB: t, dir: dir, driver: driver,
		root: filepath.Join(dir, "root"), runroot: filepath.Join(dir, "run")}
	t.Cleanup(func() {
		e.unmountAll()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return e
}

// unmountAll lets go of what the peers leave mounted under the store (their
// private bind mount of <root>/overlay), and of anything a failed test left.
func (e *env) unmountAll() {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		e.Errorf("mountinfo: %v", err)
		return
	}
	lines := strings.Split(string(data), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		f := strings.Fields(lines[i])
		if len(f) < 5 || !strings.HasPrefix(f[4], e.dir+"/") {
			continue
		}
		path := strings.ReplaceAll(f[4], `\040`, " ")
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			e.Errorf("unmount %s: %v", path, err)
		}
	}
}

// result is what a command printed and how it ended.
type result struct {
	out, err string
	code     int
}

func (e *env) try(stdin []byte, name string, args ...string) result {
	e.Helper()
	cmd := exec.Command(name, args...)
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	cmd.Dir = e.dir
	err := cmd.Run()
	r := result{out: out.String(), err: errb.String()}
	if err != nil {
		r.code = cmd.ProcessState.ExitCode()
		if r.code <= 0 {
			r.code = 255
			r.err += err.Error()
		}
	}
	return r
}

func (e *env) run(name string, args ...string) string {
	e.Helper()
	r := e.try(nil, name, args...)
	if r.code != 0 {
		e.Fatalf("%s %s: exit %d\n%s%s", name, strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// sh runs a shell script, as a user at a prompt would. $M is the mount.
func (e *env) sh(mnt, script string) result {
	e.Helper()
	return e.try(nil, "/bin/bash", "-c", "M="+mnt+"\n"+script)
}

func (e *env) mustSh(mnt, script string) string {
	e.Helper()
	r := e.sh(mnt, script)
	if r.code != 0 {
		e.Fatalf("%s\nexit %d: %s%s", script, r.code, r.out, r.err)
	}
	return r.out
}

func (e *env) csArgs() []string {
	return []string{"--graph", e.root, "--run", e.runroot, "--storage-driver", e.driver}
}

// cs runs Debian's containers-storage on the store.
func (e *env) cs(args ...string) string {
	e.Helper()
	return e.run("containers-storage", append(e.csArgs(), args...)...)
}

func (e *env) tryCS(args ...string) result {
	e.Helper()
	return e.try(nil, "containers-storage", append(e.csArgs(), args...)...)
}

func (e *env) podmanArgs() []string {
	return []string{"--root", e.root, "--runroot", e.runroot, "--storage-driver", e.driver,
		"--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime", "runc",
		"--tmpdir", filepath.Join(e.runroot, "libpod")}
}

func (e *env) podman(args ...string) string {
	e.Helper()
	return e.run("podman", append(e.podmanArgs(), args...)...)
}

func (e *env) podmanRun(image string, command ...string) string {
	e.Helper()
	args := append([]string{"run", "--rm", "--network=none",
		"--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096", image}, command...)
	return e.podman(args...)
}

func (e *env) storeRef(root, runroot, name string) string {
	return fmt.Sprintf("containers-storage:[%s@%s+%s]%s", e.driver, root, runroot, name)
}

// mount mounts the store with the real program and returns the mount point.
// The test's end unmounts it and fails when that does not work.
func (e *env) mount(opts ...string) string {
	e.Helper()
	bin, err := plyfsBinary()
	if err != nil {
		e.Fatal(err)
	}
	mnt, err := os.MkdirTemp(e.dir, "mnt-")
	if err != nil {
		e.Fatal(err)
	}
	args := []string{"mount", "--root", e.root, "--runroot", e.runroot,
		"--storage-driver", e.driver, "--log-file", mnt + ".log"}
	e.run(bin, append(append(args, opts...), mnt)...)
	e.Cleanup(func() {
		r := e.try(nil, bin, "umount", mnt)
		if r.code != 0 && !strings.Contains(r.err, "not a mount") {
			e.Errorf("plyfs umount: exit %d: %s%s", r.code, r.out, r.err)
		}
		if e.Failed() {
			if log, err := os.ReadFile(mnt + ".log"); err == nil && len(log) > 0 {
				e.Logf("log of %s:\n%s", mnt, log)
			}
		}
	})
	return mnt
}

func (e *env) read(path ...string) string {
	e.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		e.Fatal(err)
	}
	return string(data)
}

// line reads a file of one value and takes the newline off, which must be there.
func (e *env) line(path ...string) string {
	e.Helper()
	s := e.read(path...)
	if !strings.HasSuffix(s, "\n") {
		e.Fatalf("%s: no newline at the end of %q", filepath.Join(path...), s)
	}
	return strings.TrimSuffix(s, "\n")
}

func (e *env) ls(path ...string) []string {
	e.Helper()
	ents, err := os.ReadDir(filepath.Join(path...))
	if err != nil {
		e.Fatal(err)
	}
	names := make([]string, 0, len(ents))
	for _, ent := range ents {
		names = append(names, ent.Name())
	}
	return names
}
