package mountprogram

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/overlay"
	"github.com/plyfs/plyfs/store"
)

// TestLimits: where the filesystem has no project quotas, the mount program
// holds containers to their limits, as they are when it mounts them.
func TestLimits(t *testing.T) {
	t.Parallel()
	need(t)
	ctx := context.Background()
	dir := folder(t, 0)
	s, err := store.Open(ctx, store.Options{
		GraphRoot: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"),
		DriverName: "overlay",
		NewDriver:  overlay.New,
		DriverOptions: []drivers.Option{
			{Key: "mount_program", Value: ours()}, {Key: "size", Value: "4m"}, {Key: "inodes", Value: "20"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, spec := range []store.ContainerSpec{{ID: "default"}, {ID: "larger", Limits: drivers.Limits{Bytes: 6 << 20}}} {
		if _, err := s.CreateContainer(ctx, spec); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(id string, limit int64) {
		t.Helper()
		if got, _, err := s.Limits(ctx, id); err != nil || got != (drivers.Limits{Bytes: limit, Inodes: 20}) {
			t.Errorf("limits of %s: %v, %v", id, got, err)
		}
		at, err := s.Mount(ctx, id, drivers.MountOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n := fill(t, filepath.Join(at, "file")); n > limit || n < limit-1<<20 {
			t.Errorf("%s took %d bytes, want nearly %d", id, n, limit)
		}
		if n := fillWithFiles(t, at); n > 20 || n < 10 {
			t.Errorf("%s took %d files, want nearly 20", id, n)
		}
		for _, err := range []error{os.RemoveAll(filepath.Join(at, "file")), os.RemoveAll(filepath.Join(at, "d"))} {
			if err != nil {
				t.Error(err)
			}
		}
		if _, err := s.Unmount(ctx, id, false); err != nil {
			t.Error(err)
		}
	}
	holds("default", 4<<20)
	holds("larger", 6<<20)
	if err := s.SetLimits(ctx, "default", drivers.Limits{Bytes: 2 << 20, Inodes: 20}); err != nil {
		t.Fatal(err)
	}
	holds("default", 2<<20)
	for _, id := range []string{"default", "larger"} {
		if err := s.DeleteContainer(ctx, id); err != nil {
			t.Error(err)
		}
	}
}

// isFull tells whether err is what a limit answers.
func isFull(err error) bool { return errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.ENOSPC) }

// fill writes to a file until it is refused, and returns what was taken.
func fill(t *testing.T, path string) (n int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for block := bytes.Repeat([]byte("x"), 128<<10); n < 64<<20; {
		m, err := f.Write(block)
		n += int64(m)
		if err != nil {
			if !isFull(err) {
				t.Error(err)
			}
			break
		}
	}
	if err := f.Close(); err != nil && !isFull(err) {
		t.Error(err)
	}
	return n
}

// fillWithFiles makes empty files until one is refused, and returns how many
// there are.
func fillWithFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	for ; n < 100; n++ {
		if err := os.WriteFile(filepath.Join(dir, "d", string(rune('A'+n))), nil, 0o600); err != nil {
			if !isFull(err) {
				t.Error(err)
			}
			break
		}
	}
	return n
}
