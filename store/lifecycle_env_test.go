package store_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/overlay"
	"github.com/plyfs/plyfs/drivers/vfs"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/whiteout"
	"github.com/plyfs/plyfs/store"
)

// constructors are the drivers that the tests of the lifecycle run over.
func constructors() map[string]func(drivers.Config) (drivers.Driver, error) {
	return map[string]func(drivers.Config) (drivers.Driver, error){
		"overlay": overlay.New,
		"vfs":     vfs.New,
	}
}

// lifeEnv is a store on disk with a driver, opened as often as a test likes.
type lifeEnv struct {
	t         testing.TB
	driver    string
	root, run string
	// imageStores are graph roots of additional stores.
	imageStores []string
	transient   bool
	imageStore  string
	// noShift takes the driver's mapping at the mount away.
	noShift bool
}

// unshifted is a driver that does not map IDs when it mounts.
type unshifted struct{ drivers.Driver }

// The optional interfaces that tests with it need are the driver's own.
func (u unshifted) Shutdown(ctx context.Context) error { return drivers.Shutdown(ctx, u.Driver) }
func (u unshifted) Style() whiteout.Style              { return drivers.StyleOf(u.Driver) }
func (u unshifted) NativeDiff(id, parent string) (layertar.Source, bool, error) {
	if d, ok := u.Driver.(drivers.Differ); ok {
		return d.NativeDiff(id, parent)
	}
	return layertar.Source{}, false, nil
}

func (u unshifted) Flaws(f drivers.Family) ([]string, error) { return drivers.Flaws(u.Driver, f) }
func (u unshifted) Mend(f drivers.Family) error              { return drivers.Mend(u.Driver, f) }

// onDrivers runs fn over each driver in a store of its own.
func onDrivers(t *testing.T, fn func(t *testing.T, e *lifeEnv)) {
	t.Helper()
	for name := range constructors() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, newLifeEnv(t, name))
		})
	}
}

func newLifeEnv(t testing.TB, driver string) *lifeEnv {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("stores with owners and mounts are made by root; this test is run by an ordinary user")
	}
	dir, err := os.MkdirTemp("", "plyfs-store")
	if err != nil {
		t.Fatal(err)
	}
	e := &lifeEnv{t: t, driver: driver, root: filepath.Join(dir, "root"), run: filepath.Join(dir, "run")}
	t.Cleanup(func() {
		e.root = filepath.Join(dir, "root") // where the test may have put another
		e.unmountAll()
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return e
}

// unmountAll detaches what peers and drivers left mounted below the store.
func (e *lifeEnv) unmountAll() {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		e.t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		f := strings.Fields(lines[i])
		if len(f) > 1 && strings.HasPrefix(f[1], filepath.Dir(e.root)+"/") {
			if err := unix.Unmount(f[1], unix.MNT_DETACH); err != nil {
				e.t.Errorf("unmount %s: %v", f[1], err)
			}
		}
	}
}

func (e *lifeEnv) options() store.Options {
	newDriver := constructors()[e.driver]
	if e.noShift {
		inner := newDriver
		newDriver = func(c drivers.Config) (drivers.Driver, error) {
			d, err := inner(c)
			return unshifted{d}, err
		}
	}
	return store.Options{
		GraphRoot: e.root, RunRoot: e.run, DriverName: e.driver,
		NewDriver: newDriver, LockTimeout: 30 * time.Second, ImageStores: e.imageStores, Transient: e.transient, ImageStore: e.imageStore,
	}
}

// open opens the store; it is closed at the end of the test, or sooner.
func (e *lifeEnv) open() *store.Store {
	e.t.Helper()
	s, err := store.Open(context.Background(), e.options())
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			e.t.Errorf("close the store: %v", err)
		}
	})
	return s
}

// needs skips a test whose program is not installed, saying which.
func needs(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed: this test compares with it", program)
	}
}

// peer runs containers-storage on the store; its failure is the test's.
func (e *lifeEnv) peer(args ...string) string {
	e.t.Helper()
	out, err := e.tryPeer(args...)
	if err != nil {
		e.t.Fatalf("containers-storage %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (e *lifeEnv) tryPeer(args ...string) (string, error) {
	e.t.Helper()
	needs(e.t, "containers-storage")
	full := append([]string{"--graph", e.root, "--run", e.run, "--storage-driver", e.driver}, args...)
	return output(exec.Command("containers-storage", full...))
}

// podman runs podman on the store.
func (e *lifeEnv) podman(args ...string) string {
	e.t.Helper()
	needs(e.t, "podman")
	full := append([]string{"--root", e.root, "--runroot", e.run, "--storage-driver", e.driver,
		"--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime", "runc"}, args...)
	out, err := output(exec.Command("podman", full...))
	if err != nil {
		e.t.Fatalf("podman %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func output(c *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	c.Dir, c.Stdout, c.Stderr = "/", &out, &errs
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.String(), nil
}

// entry is a member of a test archive: a directory when its name ends in a
// slash, a symlink when link is set, else a file.
type entry struct {
	name, text, link string
	uid              int
}

func makeTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Uid: e.uid, Size: int64(len(e.text)), ModTime: time.Unix(1e9, 0), Typeflag: tar.TypeReg}
		switch {
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// importLayer makes a layer of a stream.
func importLayer(t testing.TB, s *store.Store, spec store.LayerSpec, stream []byte) *store.Layer {
	t.Helper()
	ctx := context.Background()
	st, err := s.StageLayer(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Import(ctx, bytes.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	l, err := st.Commit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// applyDiff adds a stream to a layer.
func applyDiff(t testing.TB, s *store.Store, ref string, stream []byte) *store.Layer {
	t.Helper()
	ctx := context.Background()
	st, err := s.StageDiff(ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Import(ctx, bytes.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	l, err := st.Commit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// get calls fn, which must succeed.
func get[A, R any](t testing.TB, fn func(context.Context, A) (R, error), ctx context.Context, arg A) R { //nolint:revive // it reads as the call that it makes
	t.Helper()
	r, err := fn(ctx, arg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
