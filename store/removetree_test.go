package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// deepTree makes a chain of directories whose path is longer than a path may
// be, with a file at each level.
func deepTree(t testing.TB, top string, depth int) {
	t.Helper()
	if err := os.Mkdir(top, 0o700); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(top, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for i := 0; i < depth && err == nil; i++ {
		name := fmt.Sprintf("directory-%d", i)
		if err = unix.Mkdirat(fd, name, 0o700); err != nil {
			break
		}
		if err = unix.Mknodat(fd, "file", unix.S_IFREG|0o600, 0); err != nil {
			break
		}
		next, oerr := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		err = errors.Join(oerr, unix.Close(fd))
		fd = next
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		t.Fatal(err)
	}
}

func TestRemoveTree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	if err := os.Mkdir(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	top := filepath.Join(dir, "top")
	deepTree(t, top, 3000)
	for i := range 2000 {
		if err := os.WriteFile(filepath.Join(top, fmt.Sprint("file", i)), nil, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(top, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".deep0", ".deep3"} { // in the way of its own names
		if err := os.MkdirAll(filepath.Join(top, name, "x"), 0o000); err != nil && !errors.Is(err, os.ErrPermission) {
			t.Fatal(err)
		}
	}
	if err := store.RemoveTree(context.Background(), top); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(top); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("a symlink was followed: %v", err)
	}
	if left := openBelow(t, dir); len(left) > 0 {
		t.Errorf("left open: %v", left)
	}
	if err := store.RemoveTree(context.Background(), top); err != nil {
		t.Errorf("a missing tree: %v", err)
	}
}

// openBelow lists the descriptors of this process on files below dir, removed
// ones too; those of other tests, which run meanwhile, do not count.
func openBelow(t testing.TB, dir string) []string {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var below []string
	for _, fd := range list {
		// A descriptor may be closed since it was listed.
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, dir+"/") {
			below = append(below, to)
		}
	}
	return below
}

// TestRemoveTreeInterrupted: a context that ends stops it; the next call does
// the rest.
func TestRemoveTreeInterrupted(t *testing.T) {
	t.Parallel()
	top := filepath.Join(t.TempDir(), "top")
	deepTree(t, top, 100)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := store.RemoveTree(ctx, top); !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
	if _, err := os.Stat(top); err != nil {
		t.Fatal(err)
	}
	if err := store.RemoveTree(context.Background(), top); err != nil {
		t.Fatal(err)
	}
}

// TestDeleteInterrupted: a deletion whose context ends while the tree is
// removed is a deletion all the same; the rest goes on in the background.
func TestDeleteInterrupted(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx, cancel := context.WithCancel(context.Background())
		o := store.WithFailpoint(e.options(), func(step string) {
			if step == "delete:4" {
				cancel()
			}
		})
		s := get(t, store.Open, context.Background(), o)
		importLayer(t, s, store.LayerSpec{ID: "layer"}, makeTar(t, entry{name: "f"}))
		if err := s.DeleteLayer(ctx, "layer"); err != nil {
			t.Fatal(err)
		}
		waitRemovals(t, s)
		if left, err := os.ReadDir(filepath.Join(e.root, "plyfs")); err != nil || len(left) != 0 {
			t.Errorf("left in the extract area: %v, %v", left, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func waitRemovals(t testing.TB, s *store.Store) {
	t.Helper()
	if err := s.WaitRemovals(context.Background()); err != nil {
		t.Error(err)
	}
}

// Who deletes waits for the files no longer than it is told to: the object is
// gone, and the removal goes on, is counted, and is waited for by GarbageCollect.
func TestRemovalGoesOn(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	e := newLifeEnv(t, "overlay")
	proceed := make(chan struct{})
	var blocked atomic.Bool
	o := store.WithFailpoint(e.options(), func(step string) {
		if step == "entry:2" && blocked.Load() {
			<-proceed
		}
	})
	o.RemoveWithin = time.Millisecond
	s, err := store.Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	l := importLayer(t, s, store.LayerSpec{}, makeTar(t, entry{name: "d/"}, entry{name: "d/f", text: "x"}))
	waitRemovals(t, s)
	blocked.Store(true)
	if err := s.DeleteLayer(ctx, l.ID); err != nil {
		t.Fatal(err)
	}
	if n := s.Removals(); n != 1 {
		t.Errorf("%d removals go on, want 1", n)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.WaitRemovals(over); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting: %v", err)
	}
	err = s.View(ctx, func(tx *store.Tx) error {
		_, err := tx.Layer(l.ID)
		return err
	})
	wantErr(t, err, errno.ErrUnknown, l.ID)
	close(proceed)
	if _, err := s.GarbageCollect(ctx, nil); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Join(o.GraphRoot, "plyfs")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
