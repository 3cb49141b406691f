//go:build linux

package mounts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
)

// OpenBare opens root without the mounts below it, for Rename and Exchange and
// the *at system calls. Where the clone is not permitted (no CAP_SYS_ADMIN) it
// is the plain directory: then nobody of that user's namespace can have bound
// anything below it either, or Rename says EXDEV. The file is the caller's.
func OpenBare(root string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, root, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_NO_AUTOMOUNT)
	if err != nil {
		fd, err = unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the graph root: %w", &os.PathError{Op: "open", Path: root, Err: err})
	}
	return os.NewFile(uintptr(fd), root), nil
}

// Rename moves from to to, both relative to root, which has no mounts below it
// (OpenBare), and syncs both directories. ErrDuplicate when to exists.
func Rename(root *os.File, from, to string) error {
	if err := Move(root, from, to); err != nil {
		return err
	}
	return Sync(root, filepath.Dir(from), filepath.Dir(to))
}

// Move is Rename without the syncs, for callers with more steps, who call Sync
// once after all of them.
func Move(root *os.File, from, to string) error {
	err := unix.Renameat2(int(root.Fd()), from, int(root.Fd()), to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = renameChecked(root, from, to)
	}
	if errors.Is(err, unix.EEXIST) {
		return errno.New(errno.ErrDuplicate, "renaming %s to %s: the latter exists: %w", from, to, err)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// renameChecked serves filesystems without RENAME_NOREPLACE; callers hold a
// lock on the names, so the gap between test and rename is theirs.
func renameChecked(root *os.File, from, to string) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(root.Fd()), to, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		return unix.EEXIST
	}
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	return unix.Renameat(int(root.Fd()), from, int(root.Fd()), to)
}

// Exchange swaps a and b, both relative to root, in one atomic step, and syncs
// both directories.
func Exchange(root *os.File, a, b string) error {
	if err := unix.Renameat2(int(root.Fd()), a, int(root.Fd()), b, unix.RENAME_EXCHANGE); err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return Sync(root, filepath.Dir(a), filepath.Dir(b))
}

// Sync makes the directories' entries and the files' data at paths, relative
// to root, durable. It asks for all of them at once, so that a filesystem with
// a journal writes it once.
func Sync(root *os.File, paths ...string) error {
	slices.Sort(paths)
	paths = slices.Compact(paths)
	errs := make([]error, len(paths))
	var wg sync.WaitGroup
	for i, path := range paths {
		wg.Go(func() { errs[i] = syncOne(root, path) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func syncOne(root *os.File, path string) (err error) {
	fd, err := unix.Openat(int(root.Fd()), path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}
