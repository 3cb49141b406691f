//go:build linux && !portable

package safefs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func openTemp(t *testing.T) (*Dir, string) {
	t.Helper()
	path := t.TempDir()
	d, err := OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, path
}

func closing(t testing.TB, f func() error) {
	t.Helper()
	if err := f(); err != nil {
		t.Error(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustBe(t *testing.T, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func TestNamesAreOneComponent(t *testing.T) {
	t.Parallel()
	d, _ := openTemp(t)
	for _, name := range []string{"", "..", "a/b", "/", "/etc", "a\x00b", "../x"} {
		for op, call := range map[string]func() error{
			"OpenDir":   func() error { _, err := d.OpenDir(name); return err },
			"Open":      func() error { _, err := d.Open(name, os.O_RDONLY, 0); return err },
			"Ref":       func() error { _, err := d.Ref(name); return err },
			"Stat":      func() error { _, err := d.Stat(name); return err },
			"Readlink":  func() error { _, err := d.Readlink(name); return err },
			"Mkdir":     func() error { return d.Mkdir(name, 0o700) },
			"Mknod":     func() error { return d.Mknod(name, unix.S_IFREG|0o600, 0) },
			"Symlink":   func() error { return d.Symlink("x", name) },
			"Link":      func() error { return d.Link(name, d, "new") },
			"LinkTo":    func() error { return d.Link("old", d, name) },
			"Unlink":    func() error { return d.Unlink(name) },
			"Rmdir":     func() error { return d.Rmdir(name) },
			"Rename":    func() error { return d.Rename(name, d, "new", 0) },
			"RenameTo":  func() error { return d.Rename("old", d, name, 0) },
			"Chown":     func() error { return d.Chown(name, 0, 0) },
			"Chmod":     func() error { return d.Chmod(name, 0) },
			"Utimens":   func() error { return d.Utimens(name, time.Now(), time.Now()) },
			"Getxattr":  func() error { _, err := d.Getxattr(name, "user.x"); return err },
			"Listxattr": func() error { _, err := d.Listxattr(name); return err },
			"Setxattr":  func() error { return d.Setxattr(name, "user.x", nil, 0) },
			"Removex":   func() error { return d.Removexattr(name, "user.x") },
		} {
			if err := call(); !errors.Is(err, syscall.EINVAL) {
				t.Errorf("%s(%q): %v, want EINVAL", op, name, err)
			}
		}
	}
}

func TestEntries(t *testing.T) {
	t.Parallel()
	d, path := openTemp(t)
	must(t, d.Mkdir("dir", 0o750))
	must(t, d.Symlink("../../etc", "link"))
	must(t, d.Mknod("fifo", unix.S_IFIFO|0o600, 0))
	f, err := d.Open("file", os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o640)
	must(t, err)
	_, err = f.WriteString("hello")
	must(t, errors.Join(err, f.Close()))
	sub, err := d.OpenDir("dir")
	must(t, err)
	defer closing(t, sub.Close)
	must(t, d.Link("file", sub, "hard"))
	must(t, d.Rename("fifo", sub, "pipe", unix.RENAME_NOREPLACE))
	must(t, sub.Sync())
	st, err := sub.Stat("hard")
	must(t, err)
	if st.Nlink != 2 || st.Size != 5 || st.Type() != unix.S_IFREG || st.Btime.IsZero() || st.Mnt == 0 {
		t.Errorf("stat: %+v", st)
	}
	if target, err := d.Readlink("link"); err != nil || target != "../../etc" {
		t.Errorf("readlink: %q, %v", target, err)
	}
	_, err = d.OpenDir("link")
	mustBe(t, err, syscall.ENOTDIR)
	_, err = d.Open("link", os.O_RDONLY, 0)
	mustBe(t, err, syscall.ELOOP)
	_, err = d.Readlink("file")
	mustBe(t, err, syscall.EINVAL)
	mustBe(t, d.Unlink("dir"), syscall.EISDIR)
	mustBe(t, d.Rmdir("dir"), syscall.ENOTEMPTY)
	var names []string
	must(t, d.ReadDir(func(e Entry) error {
		st, err := d.Stat(e.Name)
		if err != nil || st.Ino != e.Ino || st.Type() != e.Type {
			t.Errorf("entry %+v, stat %+v, %v", e, st, err)
		}
		names = append(names, e.Name)
		return nil
	}))
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "dir file link" {
		t.Errorf("names %q", got)
	}
	_, err = os.Stat(filepath.Join(path, "gone"))
	_, err2 := d.Stat("gone")
	if !errors.Is(err, fs.ErrNotExist) || !errors.Is(err2, fs.ErrNotExist) {
		t.Errorf("missing: %v, %v", err, err2)
	}
}

func TestTempFileIsLinkedIntoPlace(t *testing.T) {
	t.Parallel()
	d, _ := openTemp(t)
	f, err := d.OpenTemp(0o600)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skip("the filesystem of the temporary folder has no O_TMPFILE")
	}
	must(t, err)
	_, err = unix.Write(f.Fd(), []byte("whole"))
	must(t, err)
	must(t, f.Chmod(0o640))
	must(t, f.Setxattr("user.x", []byte("y"), 0))
	must(t, f.Link(d, "name"))
	mustBe(t, f.Link(d, "name"), syscall.EEXIST)
	must(t, f.Close())
	r, err := d.Ref("name")
	must(t, err)
	defer closing(t, r.Close)
	s, err := r.Stat()
	must(t, err)
	v, err := r.Getxattr("user.x")
	if must(t, err); s.Mode != unix.S_IFREG|0o640 || string(v) != "y" {
		t.Errorf("by its name: mode %o, attribute %q", s.Mode, v)
	}
	must(t, r.Link(d, "name2"))
	g, err := r.Open(os.O_RDONLY)
	must(t, err)
	b, err := io.ReadAll(g)
	must(t, errors.Join(err, g.Close()))
	if string(b) != "whole" {
		t.Errorf("read %q", b)
	}
}

func TestMetadataOfEveryType(t *testing.T) {
	t.Parallel()
	d, path := openTemp(t)
	outside := filepath.Join(t.TempDir(), "canary")
	must(t, os.WriteFile(outside, nil, 0o604))
	must(t, d.Mkdir("dir", 0o700))
	must(t, d.Mknod("file", unix.S_IFREG|0o600, 0))
	must(t, d.Symlink(outside, "link"))
	at, mt := time.Unix(12, 345678901), time.Unix(-7, 5)
	for _, name := range []string{"dir", "file", "link", "."} {
		must(t, d.Utimens(name, at, mt))
		must(t, d.Utimens(name, time.Time{}, time.Time{}))
		st, err := d.Stat(name)
		must(t, err)
		if !st.Atime.Equal(at) || !st.Mtime.Equal(mt) {
			t.Errorf("%s: times %v %v", name, st.Atime, st.Mtime)
		}
		if os.Getuid() == 0 {
			must(t, d.Chown(name, 1234, -1))
			must(t, d.Chown(name, -1, 4321))
			if st, err := d.Stat(name); err != nil || st.UID != 1234 || st.GID != 4321 {
				t.Errorf("%s: owner %d:%d, %v", name, st.UID, st.GID, err)
			}
		}
	}
	for _, direct := range []bool{true, false} {
		if direct && !fchmodat2Works() {
			continue
		}
		mustBe(t, d.chmod("link", 0o777, direct), syscall.EOPNOTSUPP)
		must(t, d.chmod("file", 0o4711, direct))
		must(t, d.chmod("dir", 0o1777, direct))
		must(t, d.chmod(".", 0o710, direct))
	}
	fi, err := os.Lstat(filepath.Join(path, "file"))
	if err != nil || fi.Mode() != 0o711|fs.ModeSetuid {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	fi, err = os.Lstat(outside)
	if err != nil || fi.Mode() != 0o604 || fi.Sys().(*syscall.Stat_t).Uid != uint32(os.Getuid()) {
		t.Errorf("the canary changed: %v, %v", fi, err)
	}
}

func TestXattrsOfEveryType(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("trusted.* attributes, the only ones on symlinks, need root")
	}
	d, _ := openTemp(t)
	outside := filepath.Join(t.TempDir(), "canary")
	must(t, os.WriteFile(outside, nil, 0o600))
	must(t, d.Mkdir("dir", 0o700))
	must(t, d.Mknod("file", unix.S_IFREG|0o600, 0))
	must(t, d.Symlink(outside, "link"))
	big := []byte(strings.Repeat("v", 2000))
	apis := map[string]xattrAPI{"proc": xattrProc{}}
	if xattratWorks() {
		apis["at"] = xattrat{}
	}
	for way, api := range apis {
		for _, name := range []string{"dir", "file", "link", "."} {
			attr := "trusted.t-" + way
			must(t, api.set(d.fd, name, attr, big, unix.XATTR_CREATE))
			mustBe(t, api.set(d.fd, name, attr, nil, unix.XATTR_CREATE), syscall.EEXIST)
			must(t, api.set(d.fd, name, attr+"-empty", nil, 0))
			for other, api := range apis {
				v, err := fetch(func(b []byte) (int, error) { return api.get(d.fd, name, attr, b) })
				if err != nil || string(v) != string(big) {
					t.Errorf("%s, set by %s, get by %s: %d bytes, %v", name, way, other, len(v), err)
				}
			}
			r, err := d.Ref(name)
			must(t, err)
			if v, err := r.Getxattr(attr); err != nil || string(v) != string(big) {
				t.Errorf("%s by Ref: %d bytes, %v", name, len(v), err)
			}
			got, err := r.Listxattr()
			list, err2 := d.Listxattr(name)
			if err != nil || err2 != nil || !slices.Contains(got, attr+"-empty") || !slices.Contains(list, attr) {
				t.Errorf("%s: lists %q %v, %q %v", name, got, err, list, err2)
			}
			must(t, r.Setxattr("trusted.r", []byte("1"), 0))
			must(t, r.Removexattr("trusted.r"))
			must(t, r.Close())
			must(t, api.remove(d.fd, name, attr))
			_, err = d.Getxattr(name, attr)
			mustBe(t, err, syscall.ENODATA)
		}
	}
	if n, err := unix.Listxattr(outside, make([]byte, 100)); err != nil || n != 0 {
		t.Errorf("the canary has attributes: %d bytes, %v", n, err)
	}
}

// makeMaze fills dir with directories, files and symlinks, some of which lead
// out to canary.
func makeMaze(t testing.TB, dir, canary string) {
	t.Helper()
	for _, sub := range []string{"a/b/c", "d/e"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"up": "..", "a/out": "../../" + filepath.Base(canary), "abs": canary, "d/etc": "/etc", "loop": "loop",
		"in": "a/b", "a/b/root": "/", "a/b/c/back": "../../..", "d/e/far": "../../../../../../../../etc/passwd",
		"slash": "a/b/", "dot": ".", "deep": "a/b/c/back/in/c", "file-link": "a/file", "dangling": "d/nothing",
		"proc": "/proc/self/root", "abs-in": "/a/b",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"file", "a/file", "a/b/file", "d/e/file"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWalkEqualsOpenat2 compares the walk of ours with the kernel's.
func TestWalkEqualsOpenat2(t *testing.T) {
	t.Parallel()
	if !openat2Works() {
		t.Skip("the kernel has no openat2 to compare with")
	}
	base := t.TempDir()
	canary := filepath.Join(base, "canary")
	must(t, os.Mkdir(canary, 0o755))
	root := filepath.Join(base, "root")
	makeMaze(t, root, canary)
	d, err := OpenRoot(root)
	must(t, err)
	defer closing(t, d.Close)
	part := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "..", ".", "up", "out", "abs", "etc", "loop", "in", "root",
		"back", "far", "slash", "dot", "deep", "file", "file-link", "dangling", "nothing", "proc", "abs-in", ""})
	rapid.Check(t, func(t *rapid.T) {
		path := strings.Join(rapid.SliceOfN(part, 1, 7).Draw(t, "path"), "/")
		how := rapid.SampledFrom([]Resolve{NoSymlinks, Beneath, InRoot}).Draw(t, "how")
		flags := rapid.SampledFrom([]int{unix.O_PATH, unix.O_RDONLY, unix.O_PATH | unix.O_DIRECTORY,
			unix.O_PATH | unix.O_NOFOLLOW, unix.O_RDONLY | unix.O_NOFOLLOW}).Draw(t, "flags")
		want := whatOpens(d, path, flags, how, true)
		got := whatOpens(d, path, flags, how, false)
		if want != got {
			t.Fatalf("%q flags %x how %d: kernel %s, walk %s", path, flags, how, want, got)
		}
	})
}

func whatOpens(d *Dir, path string, flags int, how Resolve, openat2 bool) string {
	fd, err := d.resolve(path, flags, 0, how, openat2)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = unix.Close(fd) }()
	st, err := statAt(fd, "", 0)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// TestNothingLeavesTheRoot runs every writing operation on random names and
// paths while another thread swaps directories for symlinks that lead out, and
// looks at what is outside.
func TestNothingLeavesTheRoot(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	canary := filepath.Join(base, "canary")
	must(t, os.MkdirAll(filepath.Join(canary, "b", "c"), 0o755))
	must(t, os.WriteFile(filepath.Join(canary, "file"), []byte("outside"), 0o644))
	before := snapshot(t, canary)
	root := filepath.Join(base, "root")
	makeMaze(t, root, canary)
	must(t, os.Symlink(canary, filepath.Join(root, "trap")))
	d, err := OpenRoot(root)
	must(t, err)
	defer closing(t, d.Close)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			_ = unix.Renameat2(unix.AT_FDCWD, root+"/a", unix.AT_FDCWD, root+"/trap", unix.RENAME_EXCHANGE)
		}
	})
	names := []string{"a", "trap", "abs", "up", "file", "b", "c", "out", "new", "in"}
	paths := []string{"a/file", "trap/file", "a/b/c", "up/canary/file", "in/file", "a/../trap/file", "abs/file", "proc/etc/passwd", "a/new"}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom(names).Draw(t, "name")
		path := rapid.SampledFrom(paths).Draw(t, "path")
		how := rapid.SampledFrom([]Resolve{NoSymlinks, Beneath}).Draw(t, "how")
		attack(d, name, path, how, rapid.Bool().Draw(t, "openat2"))
	})
	stop.Store(true)
	wg.Wait()
	if after := snapshot(t, canary); after != before {
		t.Errorf("outside, before:\n%s\nafter:\n%s", before, after)
	}
}

// attack tries to change whatever (d, name) and path lead to. Errors are
// expected; what counts is what changed.
func attack(d *Dir, name, path string, how Resolve, openat2 bool) {
	now := time.Unix(1, 0)
	_ = d.Chmod(name, 0o700)
	_ = d.Utimens(name, now, now)
	_ = d.Setxattr(name, "user.attack", []byte("1"), 0)
	_ = xattrProc{}.set(d.fd, name, "user.attack", []byte("1"), 0)
	if f, err := d.Open(name, os.O_WRONLY|os.O_TRUNC|os.O_CREATE, 0o600); err == nil {
		_ = f.Close()
	}
	if sub, err := d.OpenDir(name); err == nil {
		_ = sub.Mkdir("made", 0o700)
		_ = sub.Mknod("node", unix.S_IFREG|0o600, 0)
		_ = sub.Unlink("node")
		_ = sub.Rename("file", sub, "moved", 0)
		_ = sub.Rename("moved", sub, "file", 0)
		_ = sub.Close()
	}
	if fd, err := d.resolve(path, unix.O_RDWR|unix.O_CREAT, 0o600, how, openat2); err == nil {
		_, _ = unix.Pwrite(fd, []byte("attack"), 0)
		_ = unix.Close(fd)
	}
	if r, err := d.Ref(name); err == nil {
		_ = r.Chmod(0o711)
		_ = r.Utimens(now, now)
		_ = r.Setxattr("user.attack", []byte("2"), 0)
		_ = r.Close()
	}
}

// snapshot describes a tree in full.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		list := make([]byte, 1000)
		n, _ := unix.Llistxattr(path, list)
		content, _ := os.ReadFile(path)
		fmt.Fprintf(&b, "%s %o %d %v %q %q\n", path, st.Mode, st.Nlink, st.Mtim, list[:max(n, 0)], content)
		return nil
	}))
	return b.String()
}

func TestReadDirOfAnySize(t *testing.T) {
	t.Parallel()
	d, _ := openTemp(t)
	const n = 3000
	for i := range n {
		must(t, d.Mknod(fmt.Sprintf("%0200d", i), unix.S_IFREG|0o600, 0))
	}
	seen := map[string]bool{}
	must(t, d.ReadDir(func(e Entry) error { seen[e.Name] = true; return nil }))
	if len(seen) != n {
		t.Errorf("%d names, want %d", len(seen), n)
	}
	must(t, d.ReadNames(make([]byte, NamesBuf), func(name []byte, typ uint32) error {
		if !seen[string(name)] || typ != unix.S_IFREG {
			t.Errorf("%q, of type %o, is listed once only", name, typ)
		}
		delete(seen, string(name))
		return nil
	}))
	if len(seen) != 0 {
		t.Errorf("%d names are not listed again", len(seen))
	}
	stopped := errors.New("stopped")
	if err := d.ReadDir(func(Entry) error { return stopped }); !errors.Is(err, stopped) {
		t.Errorf("yield's error is lost: %v", err)
	}
}

func FuzzDirents(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x18\x00\x08abc\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = parseDirents(b, func(name []byte, _ uint64, _ uint32) error {
			if !ValidName(string(name)) {
				t.Errorf("name %q", name)
			}
			return nil
		})
	})
}

func BenchmarkStat(b *testing.B) {
	d, err := OpenRoot(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer closing(b, d.Close)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Stat("."); err != nil {
			b.Fatal(err)
		}
	}
}
