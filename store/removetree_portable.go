//go:build !linux || portable

package store

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// removeTree removes the directory at path with all that is in it, following
// nothing. A missing path is no error. When ctx ends it returns ctx's error
// and leaves the rest.
func removeTree(ctx context.Context, path string) error {
	err := unlock(ctx, path)
	if err == nil {
		err = os.RemoveAll(path)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// unlock makes directories that their owner may not change removable, as far as
// it gets: what cannot be removed is told when it is. WalkDir shows each
// directory before it reads it.
func unlock(ctx context.Context, path string) error {
	return filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil || !e.IsDir() {
			return nil
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o700 != 0o700 {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
}
