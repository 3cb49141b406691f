//go:build !linux

package mounts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/plyfs/plyfs/internal/durable"
	"github.com/plyfs/plyfs/internal/errno"
)

// Nothing is mounted on this system: a Plan with no Type and no Program is a
// directory that holds the tree already, any other is refused.

// OpenBare opens root, for Rename and Exchange. The file is the caller's.
func OpenBare(root string) (*os.File, error) {
	f, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("opening the graph root: %w", err)
	}
	return f, nil
}

// Rename moves from to to, both relative to root, and syncs both directories.
// ErrDuplicate when to exists.
func Rename(root *os.File, from, to string) error {
	if err := Move(root, from, to); err != nil {
		return err
	}
	return Sync(root, filepath.Dir(from), filepath.Dir(to))
}

// Move is Rename without the syncs. Callers hold a lock on the names, so the
// gap between test and rename is theirs.
func Move(root *os.File, from, to string) error {
	target := filepath.Join(root.Name(), to)
	switch _, err := os.Lstat(target); {
	case err == nil:
		return errno.New(errno.ErrDuplicate, "renaming %s to %s: the latter exists", from, to)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return os.Rename(filepath.Join(root.Name(), from), target)
}

// Exchange swaps a and b, both relative to root, in one atomic step, and syncs
// both directories. ErrNotSupported where the system has no such step.
func Exchange(root *os.File, a, b string) error {
	if err := exchange(filepath.Join(root.Name(), a), filepath.Join(root.Name(), b)); err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return Sync(root, filepath.Dir(a), filepath.Dir(b))
}

// Sync makes the directories' entries and the files' data at paths, relative
// to root, durable.
func Sync(root *os.File, paths ...string) error {
	var errs []error
	for _, path := range paths {
		errs = append(errs, syncOne(filepath.Join(root.Name(), path)))
	}
	return errors.Join(errs...)
}

func syncOne(path string) (err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return durable.SyncDir(path)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Do looks whether the tree is there; whatever would have to be mounted is
// ErrNotSupported.
func Do(ctx context.Context, p Plan) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.Type != "" || p.Program != "" {
		return errno.New(errno.ErrNotSupported, "mounting %s: not supported on this system (%s): use the driver vfs", p.Target, runtime.GOOS)
	}
	st, err := os.Stat(p.Target)
	if err != nil {
		return fmt.Errorf("mounting: %w", err)
	}
	if !st.IsDir() {
		return errno.New(errno.ErrNotDir, "mounting: %s is not a directory", p.Target)
	}
	return nil
}

// Unmount has nothing to take away.
func Unmount(context.Context, string, bool) error { return nil }

// IsMountPoint is false: nothing of a store is one here.
func IsMountPoint(string) (bool, error) { return false, nil }

// Identity is of no use here: there are no mounts.
type Identity struct{}

// IdentityOf is false.
func IdentityOf(string) (Identity, bool, error) { return Identity{}, false, nil }

// Below is empty.
func Below(string) ([]string, error) { return nil, nil }

// DetachAll does nothing: nothing is mounted.
func DetachAll(string) error { return nil }
