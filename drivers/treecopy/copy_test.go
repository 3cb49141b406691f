//go:build linux && !portable

package treecopy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// describe lists everything that stat, readlink, listxattr and the content
// show of a tree; hard links by the first name of each file.
func describe(tb testing.TB, root string) string {
	tb.Helper()
	var out strings.Builder
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if first[st.Ino] == "" {
			first[st.Ino] = rel
		}
		size := st.Size
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			size = 0
		}
		fmt.Fprintf(&out, "%q = %q mode %o nlink %d owner %d:%d rdev %d size %d mtime %d.%09d", rel, first[st.Ino],
			st.Mode, st.Nlink, st.Uid, st.Gid, st.Rdev, size, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " %x", b)
		case unix.S_IFLNK:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " -> %q", to)
		}
		fmt.Fprintf(&out, " xattrs %s\n", describeXattrs(tb, path))
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out.String()
}

func describeXattrs(tb testing.TB, path string) string {
	tb.Helper()
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		tb.Fatal(err)
	}
	var out strings.Builder
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			tb.Fatal(err)
		}
		fmt.Fprintf(&out, "%s=%q ", name, value[:n])
	}
	return out.String()
}

// grow makes a random tree with every type of file.
func grow(rt *rapid.T, root string) error {
	dirs, files := []string{root}, []string{}
	for i := range rapid.IntRange(0, 25).Draw(rt, "entries") {
		dir := rapid.SampledFrom(dirs).Draw(rt, "in")
		path := filepath.Join(dir, fmt.Sprintf("%s%d", rapid.SampledFrom([]string{"a", "\n", "\xff", "-x", `\`}).Draw(rt, "name"), i))
		var err error
		switch rapid.IntRange(0, 7).Draw(rt, "type") {
		case 0, 1:
			err = os.Mkdir(path, 0o755)
			dirs = append(dirs, path)
		case 2, 3:
			err = os.WriteFile(path, rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(rt, "data"), 0o600)
			files = append(files, path)
		case 4:
			err = os.Symlink(rapid.SampledFrom([]string{"/etc", "..", "nowhere", strings.Repeat("x", 300)}).Draw(rt, "to"), path)
		case 5:
			err = unix.Mkfifo(path, 0o600)
		case 6:
			err = unix.Mknod(path, unix.S_IFCHR|0o600, 0)
		case 7:
			if len(files) > 0 {
				err = os.Link(rapid.SampledFrom(files).Draw(rt, "target"), path)
			}
		}
		if err == nil {
			err = adorn(rt, path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func adorn(rt *rapid.T, path string) error {
	st, err := os.Lstat(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Lchown(path, rapid.IntRange(0, 9).Draw(rt, "uid"), rapid.IntRange(0, 9).Draw(rt, "gid")); err != nil {
		return err
	}
	if st.Mode()&os.ModeSymlink == 0 {
		mode := rapid.SampledFrom([]uint32{0, 0o644, 0o4755, 0o2750, 0o1777}).Draw(rt, "mode")
		if err := unix.Chmod(path, mode); err != nil {
			return err
		}
	}
	if rapid.Bool().Draw(rt, "xattr") {
		if err := unix.Lsetxattr(path, "trusted.test", []byte(rapid.String().Draw(rt, "value")), 0); err != nil {
			return err
		}
	}
	at := unix.NsecToTimespec(rapid.Int64Range(0, int64(time.Hour)*500_000).Draw(rt, "mtime"))
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}

// A copy shows what its source shows, whatever is in it.
func TestCopyEqualsSource(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: owners and device nodes are made")
	}
	rapid.Check(t, func(rt *rapid.T) {
		base := t.TempDir()
		src, dst := filepath.Join(base, "src"), filepath.Join(base, "dst")
		err := os.Mkdir(src, 0o711)
		if err == nil {
			err = grow(rt, src)
		}
		if err == nil {
			err = Copy(context.Background(), src, dst)
		}
		if err != nil {
			rt.Fatal(err)
		}
		if a, b := describe(t, src), describe(t, dst); a != b {
			rt.Fatalf("source:\n%s\ncopy:\n%s", a, b)
		}
		if err := os.RemoveAll(base); err != nil {
			rt.Fatal(err)
		}
	})
}

func TestCopyRefuses(t *testing.T) {
	base := t.TempDir()
	src, dst := filepath.Join(base, "src"), filepath.Join(base, "dst")
	if err := os.Mkdir(src, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(src, filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	if err := Copy(context.Background(), filepath.Join(base, "link"), filepath.Join(base, "x")); err == nil {
		t.Error("a symlink was followed as the source")
	}
	if err := os.Mkdir(dst, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Copy(context.Background(), src, dst); !errors.Is(err, os.ErrExist) {
		t.Errorf("onto an existing folder: %v", err)
	}
	if err := Copy(context.Background(), filepath.Join(base, "absent"), filepath.Join(base, "y")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
}

// The data is right whichever way the filesystem lets it be copied.
func TestWaysOfCopyingData(t *testing.T) {
	for _, c := range []struct{ noClone, noRange bool }{{false, false}, {true, false}, {true, true}} {
		dir := t.TempDir()
		s, err := os.Create(filepath.Join(dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		for _, off := range []int64{0, 1 << 20, 5<<20 + 123} {
			if _, err := s.WriteAt([]byte(strings.Repeat("data", 3000)), off); err != nil {
				t.Fatal(err)
			}
		}
		const size = 9 << 20
		d, err := os.Create(filepath.Join(dir, "d"))
		if err = errors.Join(err, s.Truncate(size)); err != nil {
			t.Fatal(err)
		}
		cp := &copier{ctx: context.Background(), noClone: c.noClone, noRange: c.noRange}
		if err := errors.Join(cp.data(s, d, size), s.Close(), d.Close()); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cmp", s.Name(), d.Name()).CombinedOutput(); err != nil {
			t.Errorf("%+v: %s", c, out)
		}
		var st unix.Stat_t
		if err := unix.Stat(d.Name(), &st); err != nil || st.Blocks*512 > 1<<20 {
			t.Errorf("%+v: %d bytes on disk (%v)", c, st.Blocks*512, err)
		}
	}
}
