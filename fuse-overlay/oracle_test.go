package fuseoverlay

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/vnode"
)

// The oracle is the kernel's own overlay over the same layers. Its mounts are
// detached (fsmount without move_mount): they are walked through the
// descriptor and vanish with it, so that no test can leave one behind.

// tb is what both testing.TB and rapid.T can do.
type tb interface {
	Helper()
	Fatalf(string, ...any)
	Errorf(string, ...any)
	Skipf(string, ...any)
	Cleanup(func())
}

func needRoot(t tb) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skipf("kernel overlay mounts, trusted.* attributes and device nodes need root")
	}
}

func check(t tb, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// kernelMount mounts overlay with options ("key=value") over lowers, top
// first, and returns a path to its root and what ends it.
func kernelMount(t tb, lowers []string, options ...string) (string, func()) {
	t.Helper()
	// A mount of before goes with its last descriptor, which a process that
	// another test has just forked may hold a moment longer.
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		mnt, err := tryKernelMount(t, lowers, options)
		if errors.Is(err, unix.EBUSY) && time.Now().Before(end) {
			continue
		}
		check(t, err)
		return fmt.Sprintf("/proc/self/fd/%d", mnt), func() { check(t, unix.Close(mnt)) }
	}
}

func tryKernelMount(t tb, lowers, options []string) (int, error) {
	t.Helper()
	fsfd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	check(t, err)
	defer func() { check(t, unix.Close(fsfd)) }()
	set := func(key, value string) {
		if err := unix.FsconfigSetString(fsfd, key, value); err != nil {
			t.Fatalf("overlay option %s=%s: %v%s", key, value, err, fsLog(fsfd))
		}
	}
	for _, o := range options {
		if key, value, ok := strings.Cut(o, "="); ok {
			set(key, value)
		} else {
			check(t, unix.FsconfigSetFlag(fsfd, o))
		}
	}
	for _, l := range lowers {
		set("lowerdir+", l)
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return -1, fmt.Errorf("overlay: %w%s", err, fsLog(fsfd))
	}
	return unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
}

func fsLog(fd int) string {
	b := make([]byte, 500)
	n, err := unix.Read(fd, b)
	if err != nil {
		return ""
	}
	return ": " + string(b[:n])
}

// listing of a tree: path → description.
type tree map[string]string

// about is a file as a test compares it.
type about struct {
	mode, nlink, uid, gid uint32
	size, blocks, rdev    uint64
	mtime                 int64
	link                  string
	sum                   [sha256.Size]byte
	xattrs                []string
	same                  string // the first path of this file, for files with several
	err                   string
}

func (a about) String() string {
	if a.err != "" {
		return a.err
	}
	if a.mode&unix.S_IFMT == unix.S_IFDIR {
		a.size, a.blocks = 0, 0
	}
	return fmt.Sprintf("%o links %d owner %d:%d size %d blocks %d rdev %x mtime %d link %q sum %x xattrs %q same %q",
		a.mode, a.nlink, a.uid, a.gid, a.size, a.blocks, a.rdev, a.mtime, a.link, a.sum[:4], a.xattrs, a.same)
}

// unlisted stands, under the directory's path and a slash, for entries of a
// directory that the kernel does not list: since it looks up some entries to
// list them, one that is damaged may make the whole listing EIO. Ours lists it.
const unlisted = "unlisted"

// realTree describes the tree at root on disk. Names that are listed but not
// there are left out: the kernel lists whiteouts in directories of one layer.
func realTree(t tb, root string) tree {
	t.Helper()
	out := tree{}
	first := map[[2]uint64]string{}
	var walk func(rel string)
	walk = func(rel string) {
		a, st := realFile(root + "/" + rel)
		if a.err == "gone" {
			return
		}
		if st.Nlink > 1 && a.mode&unix.S_IFMT != unix.S_IFDIR {
			key := [2]uint64{st.Dev, st.Ino}
			if first[key] == "" {
				first[key] = rel
			}
			a.same = first[key]
		}
		out[rel] = a.String()
		if a.err != "" || a.mode&unix.S_IFMT != unix.S_IFDIR {
			return
		}
		list, err := os.ReadDir(root + "/" + rel)
		if errors.Is(err, syscall.EIO) { // an entry that cannot be looked up
			out[rel+"/"] = unlisted
			return
		}
		check(t, err)
		for _, e := range list {
			walk(path.Join(rel, e.Name()))
		}
	}
	walk("")
	return out
}

func realFile(p string) (about, unix.Stat_t) {
	var st unix.Stat_t
	stat := unix.Lstat
	if strings.Count(p, "/") == 5 && strings.HasSuffix(p, "/") { // the mount's root
		stat = unix.Stat
	}
	err := stat(p, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return about{err: "gone"}, st
	}
	if err != nil {
		return about{err: "error"}, st
	}
	a := about{
		mode: st.Mode, nlink: uint32(st.Nlink), uid: st.Uid, gid: st.Gid, size: uint64(st.Size),
		blocks: uint64(st.Blocks), rdev: st.Rdev, mtime: st.Mtim.Nano(), xattrs: realXattrs(p),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		a.link, err = os.Readlink(p)
	case unix.S_IFREG:
		var b []byte
		b, err = os.ReadFile(p)
		a.sum = sha256.Sum256(b)
	}
	if err != nil {
		a.err = "error"
	}
	return a, st
}

func realXattrs(p string) []string {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, buf)
	if err != nil || n == 0 {
		return nil
	}
	var out []string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		v := make([]byte, 64<<10)
		m, err := unix.Lgetxattr(p, name, v)
		if err != nil {
			out = append(out, name+" "+err.Error())
			continue
		}
		out = append(out, fmt.Sprintf("%s=%q", name, v[:m]))
	}
	slices.Sort(out)
	return out
}

// ourTree describes the tree of node, and checks on the way what must hold of
// it whatever it shows.
func ourTree(t tb, node vnode.Node) tree {
	t.Helper()
	w := ourWalk{t: t, ctx: context.Background(), out: tree{}, first: map[uint64]string{}}
	w.walk("", node)
	return w.out
}

type ourWalk struct {
	t     tb
	ctx   context.Context
	out   tree
	first map[uint64]string
}

func (w *ourWalk) walk(rel string, node vnode.Node) {
	a := w.file(node)
	if a.nlink > 1 && a.mode&unix.S_IFMT != unix.S_IFDIR {
		if w.first[node.Ino()] == "" {
			w.first[node.Ino()] = rel
		}
		a.same = w.first[node.Ino()]
	}
	w.out[rel] = a.String()
	dir, ok := node.(vnode.Directory)
	if !ok || a.err != "" {
		return
	}
	list, err := dir.ReadDir(w.ctx)
	if err != nil {
		w.t.Errorf("readdir %q: %v", rel, err)
	}
	slices.SortFunc(list, func(a, b vnode.Dirent) int { return strings.Compare(a.Name, b.Name) })
	for i, e := range list {
		if i > 0 && list[i-1].Name == e.Name {
			w.t.Errorf("%q lists %q twice", rel, e.Name)
		}
		w.entry(dir, path.Join(rel, e.Name), e)
	}
}

func (w *ourWalk) entry(dir vnode.Directory, rel string, e vnode.Dirent) {
	child, err := dir.Lookup(w.ctx, e.Name)
	if err != nil {
		w.out[rel] = "error"
		return
	}
	if child.Node == nil {
		w.t.Errorf("%q is listed and not found", rel)
		return
	}
	if child.Node.Ino() != e.Ino {
		w.t.Errorf("%q: d_ino %x, st_ino %x", rel, e.Ino, child.Node.Ino())
	}
	if a, err := child.Node.Attr(w.ctx); err == nil && (a.Mode&unix.S_IFMT != e.Type || a.Ino != e.Ino) {
		w.t.Errorf("%q: d_type %o, attr %+v", rel, e.Type, a)
	}
	w.walk(rel, child.Node)
	if f, ok := child.Node.(vnode.Forgetter); ok {
		f.Forget()
	}
}

func (w *ourWalk) file(node vnode.Node) about {
	attr, err := node.Attr(w.ctx)
	if err != nil {
		return about{err: "error"}
	}
	a := about{
		mode: attr.Mode, nlink: attr.Nlink, uid: attr.UID, gid: attr.GID, size: attr.Size,
		blocks: attr.Blocks, rdev: attr.Rdev, mtime: attr.Mtime.UnixNano(),
	}
	x := node.(vnode.Xattrer)
	names, err := x.Listxattr(w.ctx)
	if err != nil {
		w.t.Errorf("listxattr: %v", err)
	}
	for _, name := range names {
		v, err := x.Getxattr(w.ctx, name)
		if err != nil {
			w.t.Errorf("getxattr %s: %v", name, err)
		}
		a.xattrs = append(a.xattrs, fmt.Sprintf("%s=%q", name, v))
	}
	slices.Sort(a.xattrs)
	switch n := node.(type) {
	case vnode.Symlink:
		a.link, err = n.Readlink(w.ctx)
	case vnode.Opener:
		var b []byte
		b, err = readNode(w.ctx, n)
		a.sum = sha256.Sum256(b)
	}
	if err != nil {
		a.err = "error"
	}
	return a
}

func readNode(ctx context.Context, n vnode.Opener) (b []byte, err error) {
	h, err := n.Open(ctx, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.Release(ctx)) }()
	buf := make([]byte, 32<<10)
	for off := int64(0); ; {
		n, err := h.ReadAt(ctx, buf, off)
		b = append(b, buf[:n]...)
		off += int64(n)
		if err != nil || n < len(buf) {
			return b, err
		}
	}
}

// unlisted tells whether p lies in a directory that was not listed.
func (t tree) unlisted(p string) bool {
	for {
		if t[p+"/"] == unlisted || strings.HasSuffix(p, "/") {
			return true
		}
		if p == "" || p == "." {
			return false
		}
		p = path.Dir(p)
	}
}

// compare reports every path on which the two trees differ.
func compare(t tb, oracle string, want, got tree) {
	t.Helper()
	paths := map[string]bool{}
	for p := range want {
		paths[p] = true
	}
	for p := range got {
		paths[p] = true
	}
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		if want[p] != got[p] && !want.unlisted(p) {
			t.Errorf("%q:\n%8s %s\n    ours %s", p, oracle, want[p], got[p])
		}
	}
}

func openTree(t tb, formats Format, dirs ...string) *Tree {
	t.Helper()
	c := Config{Key: "test", Formats: formats}
	for i, d := range dirs {
		c.Layers = append(c.Layers, Layer{Name: fmt.Sprintf("layer%d", i), Dir: d})
	}
	return opened(t, c)
}

// opened is Open; the test's end closes the tree.
func opened(t tb, c Config) *Tree {
	t.Helper()
	tr, err := Open(c)
	check(t, err)
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return tr
}

// compareWithKernel mounts the layers with the kernel and compares.
func compareWithKernel(t tb, formats Format, dirs []string, options ...string) {
	t.Helper()
	root, end := kernelMount(t, dirs, options...)
	defer end()
	tr := openTree(t, formats, dirs...)
	tr.often = 1
	want, got := realTree(t, root), ourTree(t, tr.Root())
	for p, about := range got {
		// The kernel leaves some entries that it fails to look up out of the
		// listing; asked for by name they fail as ours do.
		if a, _ := realFile(root + "/" + p); about == "error" && want[p] == "" {
			want[p] = a.String()
		}
	}
	compare(t, "kernel", want, got)
	check(t, tr.Close())
	if n := tr.cache.Len(); n != 0 {
		t.Errorf("%d descriptors are open after Close", n)
	}
}

// memory returns a folder of a tmpfs of the test's own, detached like the
// oracle's mounts, for what would take long on a disk.
func memory(t *testing.T) string {
	t.Helper()
	needRoot(t)
	fsfd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	check(t, err)
	defer func() { check(t, unix.Close(fsfd)) }()
	check(t, unix.FsconfigSetString(fsfd, "nr_inodes", "300000"))
	check(t, unix.FsconfigCreate(fsfd))
	mnt, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	check(t, err)
	t.Cleanup(func() { check(t, unix.Close(mnt)) })
	return fmt.Sprintf("/proc/self/fd/%d", mnt)
}

// layerDirs makes n empty directories, top first.
func layerDirs(t testing.TB, n int) []string {
	t.Helper()
	return layersIn(t, t.TempDir(), n)
}

func layersIn(t tb, base string, n int) []string {
	t.Helper()
	var dirs []string
	for i := range n {
		d := filepath.Join(base, fmt.Sprint(i))
		check(t, os.Mkdir(d, 0o755))
		dirs = append(dirs, d)
	}
	return dirs
}

func setx(t tb, p, name, value string) {
	t.Helper()
	if err := unix.Lsetxattr(p, name, []byte(value), 0); err != nil {
		t.Fatalf("setxattr %s %s: %v", p, name, err)
	}
}

func mkWhiteout(p string) error { return unix.Mknod(p, syscall.S_IFCHR, 0) }
