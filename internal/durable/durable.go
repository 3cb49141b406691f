package durable

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// TempPrefix begins the names of temporary files.
const TempPrefix = ".tmp-"

// tempTries bounds the search for a free temporary name.
const tempTries = 1000

// WriteFile replaces the content of path by what write writes, durably; the
// file's mode is perm whatever the umask. On error path is as it was, except
// that an error of the last step (the directory's fsync) leaves the new
// content in place, not known to survive a power loss.
func WriteFile(path string, perm os.FileMode, write func(io.Writer) error) error {
	f, err := createTemp(path, perm)
	if err != nil {
		return err
	}
	err = fill(f, perm, write)
	if err == nil {
		if err = os.Rename(f.Name(), path); err != nil {
			err = fmt.Errorf("put new content in place: %w", err)
		}
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(f.Name())))
	}
	return SyncDir(filepath.Dir(path))
}

// fill writes, sets the mode, syncs and closes; it always closes.
func fill(f *os.File, perm os.FileMode, write func(io.Writer) error) error {
	err := write(f)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		if err = f.Sync(); err != nil {
			err = fmt.Errorf("sync: %w", err)
		}
	}
	return errors.Join(err, f.Close())
}

func createTemp(path string, perm os.FileMode) (*os.File, error) {
	name := FirstTemp(path)
	var err error
	for range tempTries {
		var f *os.File
		f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, os.ErrExist) {
			break
		}
		dir, base := filepath.Split(path)
		name = dir + TempPrefix + base + strconv.FormatUint(uint64(rand.Uint32()), 10)
	}
	return nil, fmt.Errorf("create temporary file: %w", err)
}

// FirstTemp is the temporary file that WriteFile of path uses unless that is
// there. So whoever keeps other writers away finds what a killed one left by
// looking for one name, where listing a large directory would take long; when
// it is there, others may be, too (Sweep).
func FirstTemp(path string) string {
	dir, base := filepath.Split(path)
	return dir + TempPrefix + base + "0"
}

// Rename renames oldpath to newpath and syncs both directories.
func Rename(oldpath, newpath string) error {
	if err := os.Rename(oldpath, newpath); err != nil {
		return err
	}
	to := filepath.Dir(newpath)
	if err := SyncDir(to); err != nil {
		return err
	}
	if from := filepath.Dir(oldpath); from != to {
		return SyncDir(from)
	}
	return nil
}

// Remove removes a file or an empty directory and syncs the directory that
// held it. A missing path is no error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		return ignoreMissing(err)
	}
	return SyncDir(filepath.Dir(path))
}

// Mkdir makes a directory with mode perm whatever the umask, and syncs its
// parent. A directory that exists is os.ErrExist.
func Mkdir(path string, perm os.FileMode) error {
	if err := os.Mkdir(path, perm); err != nil {
		return err
	}
	if err := os.Chmod(path, perm); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// IsTemp tells whether name (one component) is that of a temporary file.
func IsTemp(name string) bool {
	rest, ok := strings.CutPrefix(name, TempPrefix)
	if !ok || rest == "" {
		return false
	}
	last := rest[len(rest)-1]
	return last >= '0' && last <= '9'
}

// Sweep removes the temporary files that killed writers of dir/base left. The
// caller holds the lock that keeps other writers of that file away.
func Sweep(dir, base string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ignoreMissing(err)
	}
	var errs []error
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), TempPrefix+base)
		if !ok || digits == "" || strings.Trim(digits, "0123456789") != "" {
			continue
		}
		errs = append(errs, ignoreMissing(os.Remove(filepath.Join(dir, e.Name()))))
	}
	return errors.Join(errs...)
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
