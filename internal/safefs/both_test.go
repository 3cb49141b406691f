package safefs_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/unix"
)

// These tests hold for both implementations of Dir: go test -tags portable.

// hostile makes a directory `in` full of symlinks that lead out, beside a file
// that nobody may reach.
func hostile(t *testing.T) (*safefs.Dir, string) {
	t.Helper()
	top := t.TempDir()
	in := filepath.Join(top, "in")
	for _, d := range []string{"in/dir/sub", "out"} {
		if err := os.MkdirAll(filepath.Join(top, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"in/file", "in/dir/sub/deep", "out/secret"} {
		if err := os.WriteFile(filepath.Join(top, f), []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"abs": filepath.Join(top, "out"), "up": "../out", "upfile": "../out/secret", "self": "file",
		"loop": "loop", "inside": "dir/sub", "rooted": "/dir/sub", "around": "dir/../../out/secret",
	} {
		if err := os.Symlink(target, filepath.Join(in, name)); err != nil {
			t.Fatal(err)
		}
	}
	d, err := safefs.OpenRoot(in)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, top
}

func TestBothNamesAreNotFollowed(t *testing.T) {
	t.Parallel()
	d, _ := hostile(t)
	for _, name := range []string{"abs", "up", "upfile", "self", "loop", "inside", "rooted"} {
		if _, err := d.OpenDir(name); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("OpenDir(%s): %v", name, err)
		}
		for _, flags := range []int{unix.O_RDONLY, unix.O_WRONLY | unix.O_CREAT, unix.O_WRONLY | unix.O_TRUNC} {
			if _, err := d.Open(name, flags, 0o644); !errors.Is(err, syscall.ELOOP) {
				t.Errorf("Open(%s, %#x): %v", name, flags, err)
			}
		}
		if st, err := d.Stat(name); err != nil || st.Type() != unix.S_IFLNK {
			t.Errorf("Stat(%s): %+v, %v", name, st, err)
		}
	}
	for _, name := range []string{"", "..", "a/b", "../out", "/etc", "a\x00b"} {
		if _, err := d.Open(name, unix.O_RDONLY, 0); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("Open(%q): %v", name, err)
		}
		if err := d.Mkdir(name, 0o755); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("Mkdir(%q): %v", name, err)
		}
	}
}

func TestBothResolve(t *testing.T) {
	t.Parallel()
	d, _ := hostile(t)
	for _, c := range []struct {
		path string
		how  safefs.Resolve
		want string // content, or an errno's words
	}{
		{"file", safefs.NoSymlinks, "in/file"},
		{"dir/sub/deep", safefs.NoSymlinks, "in/dir/sub/deep"},
		{"dir/../file", safefs.NoSymlinks, "in/file"},
		{"inside/deep", safefs.NoSymlinks, syscall.ELOOP.Error()},
		{"self", safefs.NoSymlinks, syscall.ELOOP.Error()},
		{"inside/deep", safefs.Beneath, "in/dir/sub/deep"},
		{"self", safefs.Beneath, "in/file"},
		{"up/secret", safefs.Beneath, syscall.EXDEV.Error()},
		{"upfile", safefs.Beneath, syscall.EXDEV.Error()},
		{"around", safefs.Beneath, syscall.EXDEV.Error()},
		{"abs/secret", safefs.Beneath, syscall.EXDEV.Error()},
		{"../out/secret", safefs.Beneath, syscall.EXDEV.Error()},
		{"/file", safefs.Beneath, syscall.EXDEV.Error()},
		{"loop/x", safefs.Beneath, syscall.ELOOP.Error()},
		{"rooted/deep", safefs.InRoot, "in/dir/sub/deep"},
		{"up/secret", safefs.InRoot, syscall.ENOENT.Error()},
		{"/file", safefs.InRoot, "in/file"},
		{"../../file", safefs.InRoot, "in/file"},
		{"nothing/x", safefs.InRoot, syscall.ENOENT.Error()},
		{"file/x", safefs.InRoot, syscall.ENOTDIR.Error()},
	} {
		got, err := content(d.OpenAt(c.path, unix.O_RDONLY, 0, c.how))
		if err != nil {
			var no syscall.Errno
			if !errors.As(err, &no) {
				t.Fatalf("%s: %v has no errno", c.path, err)
			}
			got = no.Error()
		}
		if got != c.want {
			t.Errorf("OpenAt(%s, %d): %q (%v), want %q", c.path, c.how, got, err, c.want)
		}
	}
	sub, err := d.OpenDirAt("rooted", safefs.InRoot)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir  *safefs.Dir
		want string
	}{{sub, "dir/sub"}, {d, ""}} {
		if got, err := c.dir.Place(d); err != nil || got != c.want {
			t.Errorf("Place: %q, %v; want %q", got, err, c.want)
		}
	}
	if got, err := content(sub.Open("deep", unix.O_RDONLY, 0)); got != "in/dir/sub/deep" {
		t.Errorf("%q, %v", got, err)
	}
	if err := sub.Close(); err != nil {
		t.Error(err)
	}
}

func content(f *os.File, err error) (string, error) {
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(f)
	return string(b), errors.Join(err, f.Close())
}

// TestBothEntries makes, links, renames and removes.
func TestBothEntries(t *testing.T) {
	t.Parallel()
	d, top := hostile(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	sub, err := d.OpenDir("dir")
	must(err)
	defer func() { must(sub.Close()) }()
	must(sub.Mkdir("new", 0o700))
	must(d.Symlink("../../anything", "link"))
	must(d.Link("file", sub, "hard"))
	must(d.Rename("link", sub, "moved", 0))
	text, err := sub.Readlink("moved")
	must(err)
	if text != "../../anything" {
		t.Errorf("the link says %q", text)
	}
	a, err := d.Stat("file")
	must(err)
	b, err := sub.Stat("hard")
	must(err)
	if a.Ino != b.Ino || b.Nlink != 2 || b.Type() != unix.S_IFREG || b.Size != 7 {
		t.Errorf("%+v and %+v are not one file", a, b)
	}
	must(sub.Chmod("hard", 0o4640))
	stamp := time.Unix(1e9, 5000)
	must(sub.Utimens("hard", stamp, stamp))
	must(sub.Utimens("moved", stamp, stamp))
	for _, name := range []string{"hard", "moved"} {
		st, err := sub.Stat(name)
		must(err)
		if !st.Mtime.Equal(stamp) || name == "hard" && st.Mode&0o7777 != 0o4640 {
			t.Errorf("%s: %+v", name, st)
		}
	}
	if err := sub.Chmod("moved", 0o600); !errors.Is(err, syscall.EOPNOTSUPP) {
		t.Errorf("a symlink has a mode: %v", err)
	}
	if err := sub.Unlink("new"); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("Unlink of a directory: %v", err)
	}
	if err := sub.Rmdir("hard"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("Rmdir of a file: %v", err)
	}
	must(sub.Unlink("hard"))
	must(sub.Unlink("moved"))
	must(sub.Rmdir("new"))
	must(sub.Sync())
	var names []string
	must(sub.ReadDir(func(e safefs.Entry) error { names = append(names, e.Name); return nil }))
	if !slices.Equal(names, []string{"sub"}) {
		t.Errorf("left %v", names)
	}
	if b, err := os.ReadFile(filepath.Join(top, "out/secret")); err != nil || !strings.HasPrefix(string(b), "out") {
		t.Errorf("%q, %v", b, err)
	}
}

// TestBothFromFile: a Dir of an open directory outlives the file.
func TestBothFromFile(t *testing.T) {
	t.Parallel()
	_, top := hostile(t)
	f, err := os.Open(filepath.Join(top, "in"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := safefs.FromFile(f)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	dup, err := d.Dup()
	if err = errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := content(dup.Open("file", unix.O_RDONLY, 0)); got != "in/file" {
		t.Errorf("%q, %v", got, err)
	}
	if err := dup.Close(); err != nil {
		t.Error(err)
	}
}

// TestBothCreate makes a file and gives it all that it can have.
func TestBothCreate(t *testing.T) {
	t.Parallel()
	d, _ := hostile(t)
	for _, name := range []string{"file", "upfile", "loop"} {
		if _, err := d.Create(name, 0o600); !errors.Is(err, os.ErrExist) {
			t.Errorf("Create(%s): %v", name, err)
		}
	}
	f, err := d.Create("new", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	n, err := f.WriteAt([]byte("tail"), 6)
	stamp := time.Unix(1e9, 5000)
	err = errors.Join(err, f.Truncate(12), f.Chown(os.Getuid(), os.Getgid()), f.Chmod(0o4640), f.Sync(), f.Utimens(time.Time{}, stamp))
	st, serr := f.Stat()
	if err = errors.Join(err, serr, f.Close()); err != nil || n != 4 {
		t.Fatal(n, err)
	}
	if st.Size != 12 || st.Mode != unix.S_IFREG|0o4640 || !st.Mtime.Equal(stamp) {
		t.Errorf("%+v", st)
	}
	if got, err := content(d.Open("new", unix.O_RDONLY, 0)); got != "\x00\x00\x00\x00\x00\x00tail\x00\x00" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestBothDirToRead: a directory that was opened to be read is listed as often
// as one likes, by several at once, and is not followed to.
func TestBothDirToRead(t *testing.T) {
	t.Parallel()
	d, _ := hostile(t)
	if _, err := d.OpenDirToRead("inside"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a symlink to a directory: %v", err)
	}
	sub, err := d.OpenDirToRead("dir")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		f, err := sub.Create(strings.Repeat("n", 100)+string(rune('a'+i%26))+strings.Repeat("m", i/26), 0o600)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	counts := make(chan int)
	for range 4 {
		go func() {
			n := 0
			if err := sub.ReadDir(func(safefs.Entry) error { n++; return nil }); err != nil {
				t.Error(err)
			}
			counts <- n
		}()
	}
	for range 4 {
		if n := <-counts; n != 301 {
			t.Errorf("%d names, not 301", n)
		}
	}
	if err := sub.Close(); err != nil {
		t.Error(err)
	}
}
