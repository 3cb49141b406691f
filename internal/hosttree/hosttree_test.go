package hosttree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/vnode"
)

func TestMain(m *testing.M) { os.Exit(fusetest.Main(m)) }

func open(t testing.TB, o Options) (*Window, string) {
	t.Helper()
	dir := t.TempDir()
	w, err := Open("test", dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return w, dir
}

func is(t testing.TB, what string, err error, want syscall.Errno) {
	t.Helper()
	if got := errno.Of(err); got != want {
		t.Errorf("%s: %v (%s), want %s", what, err, unix.ErrnoName(got), unix.ErrnoName(want))
	}
}

func look(t testing.TB, from vnode.Node, path string) *node {
	t.Helper()
	for _, name := range strings.Split(path, "/") {
		c, err := from.(vnode.Directory).Lookup(context.Background(), name)
		if err != nil {
			t.Fatalf("look up %s: %v", path, err)
		}
		from = c.Node
	}
	return from.(*node)
}

// A node follows its file when the window moves it, is ESTALE when somebody
// else does, and finds it again after a look-up.
func TestPlaces(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w, dir := open(t, Options{})
	for _, d := range []string{"a/b/c", "x"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := look(t, w.Root(), "a/b/c")
	a, x := look(t, w.Root(), "a"), look(t, w.Root(), "x")
	if err := a.Rename(ctx, "b", x, "moved", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Attr(ctx); err != nil {
		t.Errorf("after a rename of its parent: %v", err)
	}
	if err := os.Rename(filepath.Join(dir, "x/moved"), filepath.Join(dir, "back")); err != nil {
		t.Fatal(err)
	}
	_, err := c.Attr(ctx)
	is(t, "moved behind our back", err, syscall.ESTALE)
	if err := os.MkdirAll(filepath.Join(dir, "x/moved/c"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = c.Attr(ctx)
	is(t, "another file in its place", err, syscall.ESTALE)
	if again := look(t, w.Root(), "back/c"); again.Ino() != c.Ino() {
		t.Errorf("the file has another number: %d, %d", again.Ino(), c.Ino())
	}
	if _, err := c.Attr(ctx); err != nil {
		t.Errorf("after a look-up: %v", err)
	}
	// A directory that moves below what was its child: no cycle.
	if err := os.Rename(filepath.Join(dir, "back/c"), filepath.Join(dir, "c")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "back"), filepath.Join(dir, "c/back")); err != nil {
		t.Fatal(err)
	}
	look(t, w.Root(), "c")
	look(t, c, "back")
	if _, err := look(t, w.Root(), "c/back").Attr(ctx); err != nil {
		t.Errorf("after it became its child's child: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w, dir := open(t, Options{})
	other, _ := open(t, Options{})
	root := w.Root().(*node)
	for _, f := range []string{"f", "g"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "a\x00b", strings.Repeat("x", 256)} {
		if _, err := root.Lookup(ctx, name); err == nil && name != "." {
			t.Errorf("look-up of %q succeeds", name)
		}
		if _, err := root.Mkdir(ctx, name, 0o755); err == nil {
			t.Errorf("mkdir %q succeeds", name)
		}
	}
	is(t, "rename into another window", root.Rename(ctx, "f", other.Root(), "f", 0), syscall.EXDEV)
	is(t, "rename into another tree", root.Rename(ctx, "f", nil, "f", 0), syscall.EINVAL)
	_, err := other.Root().(*node).Link(ctx, "f", look(t, root, "f"))
	is(t, "link into another window", err, syscall.EXDEV)
	is(t, "rename onto what is there", root.Rename(ctx, "f", root, "g", unix.RENAME_NOREPLACE), syscall.EEXIST)
	if err := syscall.Mkfifo(filepath.Join(dir, "p"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = look(t, root, "p").Open(ctx, syscall.O_RDONLY)
	is(t, "open a FIFO", err, syscall.EINVAL)
	size := uint64(5)
	_, err = look(t, root, "p").Setattr(ctx, vnode.SetAttr{Size: &size})
	is(t, "truncate a FIFO", err, syscall.EINVAL)

	ro, err := Open("ro", dir, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	n := ro.Root().(*node)
	_, err = n.Mkdir(ctx, "d", 0o755)
	is(t, "mkdir", err, syscall.EROFS)
	is(t, "unlink", n.Unlink(ctx, "f"), syscall.EROFS)
	_, err = look(t, n, "f").Open(ctx, syscall.O_RDONLY|syscall.O_TRUNC)
	is(t, "open with O_TRUNC", err, syscall.EROFS)
	is(t, "setxattr", look(t, n, "f").Setxattr(ctx, "user.x", nil, 0), syscall.EROFS)
	if b, err := os.ReadFile(filepath.Join(dir, "f")); string(b) != "old" {
		t.Errorf("a read-only window changed the file: %q %v", b, err)
	}
	if _, err := Open("k", filepath.Join(dir, "none"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a window on nothing: %v", err)
	}
}

// shown returns a function that prints mode and owner of what was made.
func shown(ctx context.Context, t *testing.T) func(vnode.Child, error) string {
	return func(c vnode.Child, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.Node.Attr(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%o %d:%d", a.Mode, a.UID, a.GID)
	}
}

// What is made belongs to the caller, with its mode.
func TestOwners(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	w, dir := open(t, Options{Owners: true})
	ctx := vnode.WithCaller(t.Context(), vnode.Caller{UID: 11, GID: 22})
	root := w.Root().(*node)
	made := shown(ctx, t)
	for _, c := range []struct{ got, want string }{
		{made(root.Mkdir(ctx, "d", 0o1777)), "41777 11:22"},
		{made(root.Mknod(ctx, "s", syscall.S_IFSOCK|0o666, 0)), "140666 11:22"},
		{made(root.Mknod(ctx, "x", syscall.S_IFREG|0o4755, 0)), "104755 11:22"},
		{made(root.Symlink(ctx, "l", "/nowhere")), "120777 11:22"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
	ch, h, err := root.Create(ctx, "f", syscall.O_RDWR, 0o642)
	if got := made(ch, err); got != "100642 11:22" {
		t.Errorf("create: %s", got)
	}
	if err := h.Release(ctx); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "there"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	ch, h, err = root.Create(ctx, "there", syscall.O_RDWR, 0o777)
	if got := made(ch, err); got != "100600 0:0" {
		t.Errorf("what is there changed: %s", got)
	}
	if err := h.Release(ctx); err != nil {
		t.Error(err)
	}
	_, _, err = root.Create(ctx, "there", syscall.O_RDWR|syscall.O_EXCL, 0o777)
	is(t, "O_EXCL", err, syscall.EEXIST)
}

// A directory with the set-group-ID bit hands on its group, and the bit to
// directories.
func TestOwnersInGroupDirectory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	w, dir := open(t, Options{Owners: true})
	ctx := vnode.WithCaller(t.Context(), vnode.Caller{UID: 11, GID: 22})
	root := w.Root().(*node)
	if err := os.Mkdir(filepath.Join(dir, "g"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chown(filepath.Join(dir, "g"), 0, 99), unix.Chmod(filepath.Join(dir, "g"), 0o2777)); err != nil {
		t.Fatal(err)
	}
	g := look(t, root, "g")
	for _, c := range []struct{ got, want string }{
		{shown(ctx, t)(g.Mkdir(ctx, "d", 0o755)), "42755 11:99"},
		{shown(ctx, t)(g.Mknod(ctx, "x", syscall.S_IFREG|0o2755, 0)), "100755 11:99"},
		{shown(ctx, t)(g.Symlink(ctx, "l", "x")), "120777 11:99"},
	} {
		if c.got != c.want {
			t.Errorf("in a set-group-ID directory: got %s, want %s", c.got, c.want)
		}
	}
}

// No descriptor is held but those of opened files, nothing is remembered of
// forgotten nodes, and a path may be longer than PATH_MAX.
func TestNothingHeld(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w, dir := open(t, Options{})
	var nodes []vnode.Node
	at := w.Root()
	name := strings.Repeat("d", 200)
	for range 40 { // 8,000 bytes
		c, err := at.(*node).Mkdir(ctx, name, 0o755)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, c.Node)
		at = c.Node
	}
	c, h, err := at.(*node).Create(ctx, "f", syscall.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	nodes = append(nodes, c.Node)
	if _, err := h.(vnode.Writer).WriteAt(ctx, []byte("deep"), 0); err != nil {
		t.Error(err)
	}
	if err := at.(*node).Unlink(ctx, "f"); err != nil {
		t.Error(err)
	}
	buf := make([]byte, 9)
	if n, err := h.ReadAt(ctx, buf, 0); string(buf[:n]) != "deep" || err != nil {
		t.Errorf("read after unlink: %q %v", buf[:n], err)
	}
	if a, err := h.(vnode.HandleAttr).Attr(ctx); err != nil || a.Nlink != 0 || a.Ino != c.Node.Ino() {
		t.Errorf("fstat after unlink: %+v %v", a, err)
	}
	_, top, err := w.Root().(*node).Create(ctx, "top", syscall.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if held := below(t, dir); held != 1 { // that of the long path cannot be read

		t.Errorf("%d descriptors below the window, want the open file's", held)
	}
	if err := errors.Join(h.Release(ctx), top.Release(ctx)); err != nil {
		t.Error(err)
	}
	if held := below(t, dir); held != 0 {
		t.Errorf("%d descriptors below the window, want none", held)
	}
	for i := len(nodes) - 1; i >= 0; i-- {
		nodes[i].(vnode.Forgetter).Forget()
	}
	look(t, w.Root(), "top").Forget()
	w.forget(w.files[top.(*handle).n.f.id])
	if len(w.files) != 0 || w.root.kids != 0 {
		t.Errorf("%d files and %d children of the root are remembered", len(w.files), w.root.kids)
	}
}

// below counts this process's descriptors of files in dir.
func below(t testing.TB, dir string) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if p, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(p, dir) {
			n++
		}
	}
	return n
}

// Any sequence of changes through the window leaves what the same sequence of
// system calls leaves in a plain directory, and fails where that fails.
func TestLikeAPlainDirectory(t *testing.T) {
	t.Parallel()
	tmp, i := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		i++
		m := &model{t: rt, plain: filepath.Join(tmp, fmt.Sprint("plain", i)), host: filepath.Join(tmp, fmt.Sprint("host", i))}
		for _, d := range []string{m.plain, m.host} {
			if err := os.Mkdir(d, 0o755); err != nil {
				rt.Fatal(err)
			}
		}
		w, err := Open("model", m.host, Options{})
		if err != nil {
			rt.Fatal(err)
		}
		m.root = w.Root()
		rt.Repeat(map[string]func(*rapid.T){
			"mkdir":   m.mkdir,
			"write":   m.write,
			"rename":  m.rename,
			"remove":  m.remove,
			"link":    m.link,
			"symlink": m.symlink,
			"chmod":   m.chmod,
			"":        m.compare,
		})
	})
}

type model struct {
	t           *rapid.T
	plain, host string
	root        vnode.Node
}

// path draws a path of one to three components out of few.
func (m *model) path(t *rapid.T, label string) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3).Draw(t, label), "/")
}

// dir returns the node of p's parent and p's last component.
func (m *model) dir(p string) (*node, string, error) {
	n := m.root.(*node)
	parts := strings.Split(p, "/")
	for _, name := range parts[:len(parts)-1] {
		c, err := n.Lookup(context.Background(), name)
		if err != nil {
			return nil, "", err
		}
		n = c.Node.(*node)
		if a, err := n.Attr(context.Background()); err != nil || a.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			return nil, "", errors.Join(err, syscall.ENOTDIR)
		}
	}
	return n, parts[len(parts)-1], nil
}

// agree fails unless both failed alike. A walk through a symlink is the
// caller's in a vnode tree: such paths are refused here with ENOTDIR or ELOOP,
// and left out by noLinks.
func (m *model) agree(t *rapid.T, what string, want, got error) {
	if errno.Of(want) != errno.Of(got) {
		t.Fatalf("%s: plain %v, window %v", what, want, got)
	}
}

// noLinks skips a step whose path leads through a symlink.
func (m *model) noLinks(t *rapid.T, p string) {
	for d := filepath.Dir(p); d != "."; d = filepath.Dir(d) {
		if st, err := os.Lstat(filepath.Join(m.plain, d)); err == nil && st.Mode()&fs.ModeSymlink != 0 {
			t.Skip("through a symlink")
		}
	}
}

func (m *model) mkdir(t *rapid.T) {
	p := m.path(t, "path")
	m.noLinks(t, p)
	want := unix.Mkdir(filepath.Join(m.plain, p), 0o755)
	n, name, err := m.dir(p)
	if err == nil {
		_, err = n.Mkdir(context.Background(), name, 0o755)
	}
	m.agree(t, "mkdir "+p, want, err)
}

func (m *model) write(t *rapid.T) {
	p, data := m.path(t, "path"), rapid.StringN(1, 9, 9).Draw(t, "data")
	m.noLinks(t, p)
	fd, want := unix.Open(filepath.Join(m.plain, p), unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_EXCL, 0o644)
	if want == nil {
		_, werr := unix.Write(fd, []byte(data))
		want = errors.Join(werr, unix.Close(fd))
	}
	n, name, err := m.dir(p)
	var h vnode.Handle
	if err == nil {
		_, h, err = n.Create(context.Background(), name, syscall.O_WRONLY|syscall.O_TRUNC|syscall.O_EXCL, 0o644)
	}
	if err == nil {
		_, werr := h.(vnode.Writer).WriteAt(context.Background(), []byte(data), 0)
		err = errors.Join(werr, h.Release(context.Background()))
	}
	m.agree(t, "write "+p, want, err)
}

func (m *model) rename(t *rapid.T) {
	from, to := m.path(t, "from"), m.path(t, "to")
	m.noLinks(t, from)
	m.noLinks(t, to)
	flags := rapid.SampledFrom([]uint{0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}).Draw(t, "flags")
	want := unix.Renameat2(unix.AT_FDCWD, filepath.Join(m.plain, from), unix.AT_FDCWD, filepath.Join(m.plain, to), flags)
	n, name, err := m.dir(from)
	var td *node
	var newName string
	if err == nil {
		td, newName, err = m.dir(to)
	}
	if err == nil {
		err = n.Rename(context.Background(), name, td, newName, uint32(flags))
	}
	m.agree(t, "rename "+from+" "+to, want, err)
}

func (m *model) remove(t *rapid.T) {
	p := m.path(t, "path")
	m.noLinks(t, p)
	n, name, err := m.dir(p)
	var want error
	if rapid.Bool().Draw(t, "directory") {
		want = unix.Rmdir(filepath.Join(m.plain, p))
		if err == nil {
			err = n.Rmdir(context.Background(), name)
		}
	} else {
		want = unix.Unlink(filepath.Join(m.plain, p))
		if err == nil {
			err = n.Unlink(context.Background(), name)
		}
	}
	m.agree(t, "remove "+p, want, err)
}

func (m *model) link(t *rapid.T) {
	from, to := m.path(t, "from"), m.path(t, "to")
	m.noLinks(t, from)
	m.noLinks(t, to)
	if _, err := os.Lstat(filepath.Join(m.plain, from)); err != nil {
		t.Skip("nothing to link")
	}
	want := unix.Link(filepath.Join(m.plain, from), filepath.Join(m.plain, to))
	n, name, err := m.dir(from)
	var target vnode.Node
	if err == nil {
		var c vnode.Child
		c, err = n.Lookup(context.Background(), name)
		target = c.Node
	}
	if err == nil {
		n, name, err = m.dir(to)
	}
	if err == nil {
		_, err = n.Link(context.Background(), name, target)
	}
	m.agree(t, "link "+from+" "+to, want, err)
}

func (m *model) symlink(t *rapid.T) {
	p, target := m.path(t, "path"), rapid.SampledFrom([]string{"a", "../b", "/etc"}).Draw(t, "target")
	m.noLinks(t, p)
	want := unix.Symlink(target, filepath.Join(m.plain, p))
	n, name, err := m.dir(p)
	if err == nil {
		_, err = n.Symlink(context.Background(), name, target)
	}
	m.agree(t, "symlink "+p, want, err)
}

func (m *model) chmod(t *rapid.T) {
	p, mode := m.path(t, "path"), rapid.Uint32Range(0o700, 0o777).Draw(t, "mode")
	m.noLinks(t, p)
	if st, err := os.Lstat(filepath.Join(m.plain, p)); err != nil || st.Mode()&fs.ModeSymlink != 0 {
		t.Skip("nothing with a mode")
	}
	when := time.Unix(1e9+int64(mode), 5)
	want := errors.Join(unix.Chmod(filepath.Join(m.plain, p), mode), os.Chtimes(filepath.Join(m.plain, p), when, when))
	n, name, err := m.dir(p)
	if err == nil {
		var c vnode.Child
		if c, err = n.Lookup(context.Background(), name); err == nil {
			_, err = c.Node.(*node).Setattr(context.Background(), vnode.SetAttr{Mode: &mode, Mtime: &when, Atime: &when})
		}
	}
	m.agree(t, "chmod "+p, want, err)
}

// compare lists both trees, the window's through its nodes.
func (m *model) compare(t *rapid.T) {
	var want []string
	err := filepath.WalkDir(m.plain, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == m.plain {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		content := ""
		switch {
		case d.Type() == fs.ModeSymlink:
			content, err = os.Readlink(p)
		case d.Type().IsRegular():
			var b []byte
			b, err = os.ReadFile(p)
			content = string(b)
		}
		rel, _ := filepath.Rel(m.plain, p)
		want = append(want, fmt.Sprintf("%s %o %d %q", rel, st.Mode, st.Nlink, content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	m.walk(t, m.root.(*node), "", &got)
	sort.Strings(want)
	sort.Strings(got)
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Fatalf("the window shows\n%s\nwant\n%s", g, w)
	}
}

func (m *model) walk(t *rapid.T, n *node, at string, out *[]string) {
	ctx := context.Background()
	list, err := n.ReadDir(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		c, err := n.Lookup(ctx, e.Name)
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.Node.Attr(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if a.Ino != e.Ino || a.Mode&syscall.S_IFMT != e.Type || a.Ino != c.Node.Ino() {
			t.Fatalf("%s: listed as %d %o, is %d %o", e.Name, e.Ino, e.Type, a.Ino, a.Mode)
		}
		content := ""
		switch e.Type {
		case syscall.S_IFLNK:
			content, err = c.Node.(*node).Readlink(ctx)
		case syscall.S_IFREG:
			var h vnode.Handle
			if h, err = c.Node.(*node).Open(ctx, syscall.O_RDONLY); err == nil {
				buf := make([]byte, 100)
				var k int
				k, err = h.ReadAt(ctx, buf, 0)
				content = string(buf[:k])
				err = errors.Join(err, h.Release(ctx))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		*out = append(*out, fmt.Sprintf("%s %o %d %q", at+e.Name, a.Mode, a.Nlink, content))
		if e.Type == syscall.S_IFDIR {
			m.walk(t, c.Node.(*node), at+e.Name+"/", out)
		}
		c.Node.(vnode.Forgetter).Forget()
	}
}
