//go:build linux

package drivertest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/mounts"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// Maker says which driver, in which mode, the suite is run over.
type Maker struct {
	New     func(drivers.Config) (drivers.Driver, error)
	Options []drivers.Option
	// Union says that layers are merged by a mount, and not whole copies.
	Union bool
	// NoColon says that the mount program cannot be told of paths with one.
	NoColon bool
}

// Store is a fresh graph root with a driver on it. It does what the store
// package does around a driver, without records and locks.
type Store struct {
	tb     testing.TB
	Driver drivers.Driver
	Config drivers.Config
	stages atomic.Int64
}

// Open makes a store whose root is below a temporary folder, in a folder named
// rootName. What is left mounted below it at the end fails the test.
func Open(tb testing.TB, m Maker, rootName string, extra ...drivers.Option) *Store {
	tb.Helper()
	base := tb.TempDir()
	root, run := filepath.Join(base, rootName), filepath.Join(base, "run")
	for _, dir := range []string{root, run} {
		must(tb, os.MkdirAll(dir, 0o700))
	}
	bare, err := mounts.OpenBare(root)
	must(tb, err)
	s := &Store{tb: tb, Config: drivers.Config{
		Root: root, RunRoot: run, Bare: bare,
		Options: append(slices.Clone(m.Options), extra...),
	}}
	s.Driver, err = m.New(s.Config)
	must(tb, err)
	tb.Cleanup(func() { s.close(base) })
	return s
}

func (s *Store) close(base string) {
	if err := drivers.Shutdown(context.Background(), s.Driver); err != nil {
		s.tb.Errorf("shutdown: %v", err)
	}
	if err := s.Config.Bare.Close(); err != nil {
		s.tb.Errorf("closing the bare root: %v", err)
	}
	left, err := mounts.Below(base)
	if err != nil {
		s.tb.Errorf("looking for mounts: %v", err)
	}
	for i := len(left) - 1; i >= 0; i-- {
		s.tb.Errorf("left mounted: %s", left[i])
		_ = unix.Unmount(left[i], unix.MNT_DETACH)
	}
}

// Stage makes a stage and returns its path relative to the root.
func (s *Store) Stage() string {
	s.tb.Helper()
	rel := filepath.Join("plyfs", fmt.Sprintf("stage%d", s.stages.Add(1)))
	must(s.tb, os.MkdirAll(filepath.Join(s.Config.Root, rel), 0o700))
	return rel
}

// Create makes a layer in a new stage and fills it.
func (s *Store) Create(spec drivers.LayerSpec, fill func(p drivers.Private)) (stage string) {
	s.tb.Helper()
	stage = s.Stage()
	p, err := s.Driver.Create(context.Background(), stage, spec)
	must(s.tb, err)
	if fill != nil {
		fill(p)
	}
	return stage
}

// Layer makes and publishes a layer.
func (s *Store) Layer(id, parent string, fill func(p drivers.Private)) {
	s.tb.Helper()
	stage := s.Create(drivers.LayerSpec{ID: id, Parent: parent, RootUID: os.Getuid(), RootGID: os.Getgid()}, fill)
	must(s.tb, s.Driver.Publish(stage, id))
}

// Mount mounts a layer and returns where; unmount takes it away and is run at
// the end in any case.
func (s *Store) Mount(id string, o drivers.MountOptions) (dir string, unmount func()) {
	s.tb.Helper()
	plan, err := s.Driver.Mount(id, o)
	must(s.tb, err)
	must(s.tb, mounts.Do(context.Background(), plan))
	done := false
	unmount = func() {
		s.tb.Helper()
		if done || (plan.Type == "" && plan.Program == "") {
			return
		}
		done = true
		if err := mounts.Unmount(context.Background(), plan.Target, true); err != nil {
			s.tb.Errorf("unmounting %s: %v", plan.Target, err)
		}
	}
	s.tb.Cleanup(unmount)
	return plan.Target, unmount
}

// Hide marks name as gone in a layer's directory, in the layer's style.
func Hide(tb testing.TB, p drivers.Private, name string) {
	tb.Helper()
	path := filepath.Join(p.Dir, name)
	switch p.Style {
	case whiteout.Apply:
		must(tb, os.RemoveAll(path))
	case whiteout.Files:
		write(tb, filepath.Join(filepath.Dir(path), ".wh."+filepath.Base(path)), "")
	default:
		must(tb, unix.Mknod(path, unix.S_IFCHR, 0))
	}
}

// Opaque marks a directory so that nothing of it shows from below.
func Opaque(tb testing.TB, p drivers.Private, name string) {
	tb.Helper()
	path := filepath.Join(p.Dir, name)
	if p.Style == whiteout.Apply {
		must(tb, os.RemoveAll(path))
	}
	must(tb, os.MkdirAll(path, 0o755))
	switch p.Style {
	case whiteout.Files:
		write(tb, filepath.Join(path, ".wh..wh..opq"), "")
	case whiteout.Trusted:
		must(tb, unix.Setxattr(path, "trusted.overlay.opaque", []byte("y"), 0))
	case whiteout.User:
		must(tb, unix.Setxattr(path, "user.overlay.opaque", []byte("y"), 0))
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func write(tb testing.TB, path, text string) {
	tb.Helper()
	must(tb, os.WriteFile(path, []byte(text), 0o644))
}

func read(tb testing.TB, path string) string {
	tb.Helper()
	b, err := os.ReadFile(path)
	must(tb, err)
	return string(b)
}

func names(tb testing.TB, dir string) string {
	tb.Helper()
	entries, err := os.ReadDir(dir)
	must(tb, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

// needRoot skips a case that only root can run.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts and device nodes are made")
	}
}
