package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/lockfile"
)

// LockDigest takes the lock that belongs to a digest, by which those who are
// about to fetch the same content wait for each other; it guards nothing of
// the store. unlock lets go of it. It is a file of the run root's folder
// `<driver>-locks`, so other processes take part, and it must be taken with no
// other lock held. ErrTimeout, ErrBadValue for what is no digest.
func (s *Store) LockDigest(ctx context.Context, d digest.Digest) (unlock func() error, err error) {
	if err := d.Validate(); err != nil {
		return nil, errno.New(errno.ErrBadValue, "%q is no digest; write it as sha256: and 64 hex digits", short(string(d)))
	}
	dir := filepath.Join(s.opts.RunRoot, s.opts.DriverName+"-locks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock digest %s: %w", d, err)
	}
	f := lockfile.New(filepath.Join(dir, d.String()), lockfile.Options{Timeout: s.opts.LockTimeout, SideDir: s.sideDir()})
	held, err := f.Lock(ctx, "digest "+d.String())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock digest %s: %w", d, err), f.Close())
	}
	return func() error { return errors.Join(held.Unlock(), f.Close()) }, nil
}
