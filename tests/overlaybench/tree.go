package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// treeHash hashes names, types, modes, owners, link texts and contents of all
// below top, which may be a file, but for the content and size of files called
// apart.
func treeHash(top string, apart []string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		return hashEntry(sum, path, rel, info, slices.Contains(apart, e.Name()))
	})
	return hex.EncodeToString(sum.Sum(nil)[:8]), err
}

func hashEntry(sum hash.Hash, path, rel string, info fs.FileInfo, apart bool) (err error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: no attributes", path)
	}
	fmt.Fprintf(sum, "%q %o %d %d\n", rel, st.Mode, st.Uid, st.Gid)
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		fmt.Fprintf(sum, "%q\n", target)
		return err
	case !info.Mode().IsRegular() || apart:
		return nil
	}
	fmt.Fprintf(sum, "%d\n", info.Size())
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(sum, f)
	return err
}
