//go:build linux

package overlay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/durable"
)

// maxLower bounds what is read of a lower or link file, in bytes: MaxLowers
// links of 29 bytes, with room for what peers may add.
const maxLower = 64 << 10

// writeFile writes a small file whole and durably.
func writeFile(path, text string, perm os.FileMode) error {
	return durable.WriteFile(path, perm, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
}

// newFile writes a small file into a directory of the stage, where nobody
// looks and a part is no harm. Publish syncs it.
func newFile(path, text string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	return f.Chmod(0o644)
}

// readSmall reads a regular file of at most maxLower bytes.
func readSmall(path string) (text string, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, maxLower+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxLower {
		return "", fmt.Errorf("%s is longer than %d bytes", path, maxLower)
	}
	return string(b), nil
}

// mkdir makes a directory with exactly this mode, whatever the umask.
func mkdir(path string, perm os.FileMode) error {
	if err := os.Mkdir(path, perm); err != nil {
		return err
	}
	return os.Chmod(path, perm)
}

// ensureDir makes a missing directory; anything else that is there is an error.
func ensureDir(path string, perm os.FileMode) error {
	st, err := os.Lstat(path)
	if err == nil && st.IsDir() {
		return nil
	}
	if err == nil {
		return fmt.Errorf("%s is not a directory", path)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	err = mkdir(path, perm)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}
