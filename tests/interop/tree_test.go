package interop

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// describe returns a line a file of everything that stat, readlink, listxattr
// and content show of a tree, with hard links as groups of paths.
func describe(t testing.TB, root string) []string {
	t.Helper()
	var lines []string
	links := map[uint64][]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		line, st, err := describeOne(path, rel)
		if err != nil {
			return err
		}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			links[st.Ino] = append(links[st.Ino], rel)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var groups []string
	for _, paths := range links {
		sort.Strings(paths)
		groups = append(groups, "links "+strings.Join(paths, " "))
	}
	sort.Strings(groups)
	return append(lines, groups...)
}

func describeOne(path, rel string) (string, unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", st, fmt.Errorf("lstat %s: %w", path, err)
	}
	line := fmt.Sprintf("%q mode=%o uid=%d gid=%d mtime=%d.%09d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		sum, err := hashFile(path)
		if err != nil {
			return "", st, err
		}
		line += fmt.Sprintf(" nlink=%d size=%d sha256=%s", st.Nlink, st.Size, sum)
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", st, err
		}
		line += fmt.Sprintf(" -> %q", target)
	case unix.S_IFCHR, unix.S_IFBLK:
		line += fmt.Sprintf(" rdev=%d", st.Rdev)
	}
	xattrs, err := listXattrs(path)
	if err != nil {
		return "", st, err
	}
	return line + xattrs, st, nil
}

func listXattrs(path string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return "", fmt.Errorf("llistxattr %s: %w", path, err)
	}
	names := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	var out strings.Builder
	for _, name := range names {
		val := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, val)
		if err != nil {
			return "", fmt.Errorf("lgetxattr %s %s: %w", path, name, err)
		}
		fmt.Fprintf(&out, " %s=%x", name, val[:n])
	}
	return out.String(), nil
}

func hashFile(path string) (_ string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sameTree fails the test, showing what differs, when two trees do not look alike.
func sameTree(t testing.TB, what, got, want string) {
	t.Helper()
	g, w := describe(t, got), describe(t, want)
	if slices.Equal(g, w) {
		return
	}
	var diff strings.Builder
	inG, inW := map[string]bool{}, map[string]bool{}
	for _, l := range g {
		inG[l] = true
	}
	for _, l := range w {
		inW[l] = true
		if !inG[l] {
			fmt.Fprintf(&diff, "- %s\n", l)
		}
	}
	for _, l := range g {
		if !inW[l] {
			fmt.Fprintf(&diff, "+ %s\n", l)
		}
	}
	t.Errorf("%s: trees differ (- wanted, + got):\n%s", what, diff.String())
}
