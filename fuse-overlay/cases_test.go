package fuseoverlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

// get walks path from node.
func get(t tb, node vnode.Node, path string) vnode.Child {
	t.Helper()
	c := vnode.Child{Node: node}
	for name := range strings.SplitSeq(path, "/") {
		var err error
		if c, err = c.Node.(vnode.Directory).Lookup(context.Background(), name); err != nil {
			t.Fatalf("%s: look up %q: %v", path, name, err)
		}
		if c.Node == nil {
			return c
		}
	}
	return c
}

func names(t tb, node vnode.Node) string {
	t.Helper()
	list, err := node.(vnode.Directory).ReadDir(context.Background())
	check(t, err)
	var out []string
	for _, e := range list {
		out = append(out, e.Name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func content(t tb, node vnode.Node) string {
	t.Helper()
	b, err := readNode(context.Background(), node.(vnode.Opener))
	check(t, err)
	return string(b)
}

// put writes files: "path" → content; a path that ends in a slash is a directory.
func put(t tb, dir string, files map[string]string) {
	t.Helper()
	for p, text := range files {
		full := filepath.Join(dir, p)
		if strings.HasSuffix(p, "/") {
			check(t, os.MkdirAll(full, 0o755))
			continue
		}
		check(t, os.MkdirAll(filepath.Dir(full), 0o755))
		check(t, os.WriteFile(full, []byte(text), 0o644))
	}
}

func TestMarkFiles(t *testing.T) {
	t.Parallel()
	d := layerDirs(t, 3)
	put(t, d[2], map[string]string{"a/low": "", "b/low": "", "c/low": "", "gone": "", "both": "old", "dir/low": "", "deep/x/y/low": ""})
	put(t, d[1], map[string]string{"a/.wh..wh..opq": "", "a/mid": "", ".wh.gone": "", "both": "new", ".wh.both": "",
		"dir/mid": "", ".wh.dir": "", "b/.wh..wh.aufs": "", "b/.wh.nothing": "", "deep/x/.wh.y": ""})
	put(t, d[0], map[string]string{"b/top": "", "c/.wh.low": "", "deep/x/y/top": ""})
	tr := openTree(t, 0, d...)
	root := tr.Root()
	for path, want := range map[string]string{"a": "mid", "b": "low top", "c": "", "dir": "mid", "deep/x/y": "top"} {
		if got := names(t, get(t, root, path).Node); got != want {
			t.Errorf("%s lists %q, want %q", path, got, want)
		}
	}
	if got := names(t, root); got != "a b both c deep dir" {
		t.Errorf("the root lists %q", got)
	}
	if got := content(t, get(t, root, "both").Node); got != "new" {
		t.Errorf("a file beside its own whiteout reads %q", got)
	}
	for _, path := range []string{"gone", ".wh.gone", "c/low", "a/low", "a/.wh..wh..opq", "dir/low", "deep/x/y/low", "nothing"} {
		if c := get(t, root, path); c.Node != nil || c.Entry != vnode.ValidForever {
			t.Errorf("%s: %+v", path, c)
		}
	}
	ourTree(t, root) // listings and look-ups agree
	without := openTree(t, Trusted, d...)
	if c := get(t, without.Root(), ".wh.gone"); c.Node == nil {
		t.Error("with the kernel's marks alone, .wh. files are files")
	}
}

func TestOpaqueRootOfFiles(t *testing.T) {
	t.Parallel()
	d := layerDirs(t, 3)
	put(t, d[2], map[string]string{"low": "", "dir/low": ""})
	put(t, d[1], map[string]string{opaqueFile: "", "dir/mid": ""})
	put(t, d[0], map[string]string{"dir/top": ""})
	root := openTree(t, 0, d...).Root()
	if got := names(t, root) + "; " + names(t, get(t, root, "dir").Node); got != "dir; mid top" {
		t.Errorf("lists %q", got)
	}
	if get(t, root, "low").Node != nil {
		t.Error("found what the root hides")
	}
}

// TestAttributeMarks goes through each namespace that an ordinary user can, or
// only root can, write.
func TestAttributeMarks(t *testing.T) {
	t.Parallel()
	for _, ns := range []string{trustedPrefix, userPrefix, fusePrefix} {
		t.Run(ns, func(t *testing.T) {
			t.Parallel()
			if ns == trustedPrefix {
				needRoot(t)
			}
			d := layerDirs(t, 3)
			put(t, d[2], map[string]string{"o/low": "", "x/gone": "", "x/stays": "", "was/low": "", "data": "the data", "p/was/low": ""})
			put(t, d[1], map[string]string{"o/mid": "", "x/gone": "", "moved/mid": "", "meta": "", "p/rel/mid": ""})
			setx(t, d[1]+"/o", ns+"opaque", "y")
			want := map[string]string{"o": "mid", "x": "gone stays", "moved": "mid", "p/rel": "mid"}
			if ns != fusePrefix {
				setx(t, d[1]+"/x", ns+"opaque", "x")
				setx(t, d[1]+"/x/gone", ns+"whiteout", "")
				setx(t, d[1]+"/moved", ns+"redirect", "/was")
				setx(t, d[1]+"/p/rel", ns+"redirect", "was")
				setx(t, d[1]+"/meta", ns+"metacopy", "")
				setx(t, d[1]+"/meta", ns+"redirect", "/data")
				check(t, os.Truncate(d[1]+"/meta", 8))
				want["x"], want["moved"], want["p/rel"] = "stays", "low mid", "low mid"
			}
			root := openTree(t, 0, d...).Root()
			for path, list := range want {
				node := get(t, root, path).Node
				if got := names(t, node); got != list {
					t.Errorf("%s lists %q, want %q", path, got, list)
				}
				if l, err := node.(vnode.Xattrer).Listxattr(t.Context()); err != nil || len(l) != 0 {
					t.Errorf("%s shows the attributes %q, %v", path, l, err)
				}
			}
			if ns != fusePrefix && content(t, get(t, root, "meta").Node) != "the data" {
				t.Error("the metacopy has not its data")
			}
			ourTree(t, root)
		})
	}
}

func TestEscapedAttributesShowAndPrivateOnesDoNot(t *testing.T) {
	t.Parallel()
	d := layerDirs(t, 2)
	put(t, d[0], map[string]string{"f": ""})
	f := d[0] + "/f"
	setx(t, f, "user.overlay.overlay.opaque", "inner")
	setx(t, f, "user.overlay.origin", "private")
	setx(t, f, "user.fuseoverlayfs.origin", "private")
	setx(t, f, "user.plain", "v")
	node := get(t, openTree(t, 0, d...).Root(), "f").Node.(vnode.Xattrer)
	list, err := node.Listxattr(t.Context())
	slices.Sort(list)
	if got := strings.Join(list, " "); err != nil || got != "user.overlay.opaque user.plain" {
		t.Errorf("lists %q, %v", got, err)
	}
	if v, err := node.Getxattr(t.Context(), "user.overlay.opaque"); err != nil || string(v) != "inner" {
		t.Errorf("reads %q, %v", v, err)
	}
	for _, name := range []string{"user.overlay.origin", "user.fuseoverlayfs.origin", "user.nothing"} {
		if _, err := node.Getxattr(t.Context(), name); !errors.Is(err, syscall.ENODATA) {
			t.Errorf("%s: %v, want ENODATA", name, err)
		}
	}
}

func TestTrustedAttributesAreForRoot(t *testing.T) {
	t.Parallel()
	needRoot(t)
	d := layerDirs(t, 1)
	put(t, d[0], map[string]string{"f": ""})
	setx(t, d[0]+"/f", "trusted.x", "1")
	node := get(t, openTree(t, 0, d...).Root(), "f").Node.(vnode.Xattrer)
	for uid, want := range map[uint32]int{0: 1, 1000: 0} {
		ctx := vnode.WithCaller(t.Context(), vnode.Caller{UID: uid})
		if l, err := node.Listxattr(ctx); err != nil || len(l) != want {
			t.Errorf("uid %d is shown %q, %v", uid, l, err)
		}
	}
}

func TestLayerXattr(t *testing.T) {
	t.Parallel()
	d := layerDirs(t, 3)
	put(t, d[2], map[string]string{"dir/low": ""})
	put(t, d[1], map[string]string{"dir/mid": ""})
	check(t, os.Symlink("x", d[1]+"/link"))
	root := openTree(t, 0, d...).Root()
	for path, want := range map[string]string{"dir": "layer1", "dir/low": "layer2", "dir/mid": "layer1"} {
		x := get(t, root, path).Node.(vnode.Xattrer)
		v, err := x.Getxattr(t.Context(), LayerXattr)
		list, err2 := x.Listxattr(t.Context())
		if string(v) != want || len(list) != 0 || errors.Join(err, err2) != nil {
			t.Errorf("%s: %q, listed %q, %v %v", path, v, list, err, err2)
		}
	}
	if v, err := root.(vnode.Xattrer).Getxattr(t.Context(), LayerXattr); err != nil || string(v) != "layer0" {
		t.Errorf("root: %q, %v", v, err)
	}
	_, err := get(t, root, "link").Node.(vnode.Xattrer).Getxattr(t.Context(), LayerXattr)
	if no := errno.Of(err); no != syscall.ENODATA && no != syscall.EPERM && no != syscall.EOPNOTSUPP {
		t.Errorf("a symlink answers %v", err)
	}
}

func TestOverride(t *testing.T) {
	t.Parallel()
	d := layerDirs(t, 1)
	put(t, d[0], map[string]string{"f": "", "bad": ""})
	setx(t, d[0]+"/f", "user.containers.override_stat", "5:6:104751")
	setx(t, d[0]+"/bad", "user.containers.override_stat", "5:6")
	attr := func(f Format, path string) vnode.Attr {
		a, err := get(t, openTree(t, f, d...).Root(), path).Node.Attr(t.Context())
		check(t, err)
		return a
	}
	if a := attr(Override, "f"); a.UID != 5 || a.GID != 6 || a.Mode != unix.S_IFREG|0o4751 {
		t.Errorf("override: %+v", a)
	}
	if a := attr(AllMarks, "f"); a.UID != uint32(os.Getuid()) || a.Mode != unix.S_IFREG|0o644 {
		t.Errorf("without Override: %+v", a)
	}
	if a := attr(Override, "bad"); a.UID != uint32(os.Getuid()) || a.Mode != unix.S_IFREG|0o644 {
		t.Errorf("a bad value: %+v", a)
	}
}

func TestFiveHundredLayers(t *testing.T) {
	t.Parallel()
	needRoot(t)
	d := layersIn(t, memory(t), MaxLayers)[1:] // the kernel counts no upper
	for i, l := range d {
		put(t, l, map[string]string{fmt.Sprintf("only/in/%d", i): fmt.Sprint(i), "everywhere": fmt.Sprint(i), fmt.Sprintf("d%d/f", i): ""})
	}
	check(t, mkWhiteout(d[100]+"/only/in/400"))
	setx(t, d[450]+"/only/in", "trusted.overlay.opaque", "y")
	compareWithKernel(t, AllMarks, d)
	if _, err := Open(Config{Layers: make([]Layer, MaxLayers+1)}); errno.Of(err) != syscall.EINVAL {
		t.Errorf("one layer too many: %v", err)
	}
}

func TestLongestNames(t *testing.T) {
	t.Parallel()
	needRoot(t)
	d := layerDirs(t, 2)
	long := func(c string) string { return strings.Repeat(c, 255) }
	put(t, d[1], map[string]string{long("a") + "/" + long("b"): "low", long("c"): "gone", long("\xff"): ""})
	put(t, d[0], map[string]string{long("a") + "/" + long("d"): "top"})
	check(t, mkWhiteout(filepath.Join(d[0], long("c"))))
	compareWithKernel(t, AllMarks, d)
	root := openTree(t, 0, d...).Root().(vnode.Directory)
	if _, err := root.Lookup(t.Context(), long("a")+"a"); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Errorf("256 bytes: %v", err)
	}
	for _, bad := range []string{"", ".", "..", "a/b", "a\x00"} {
		if _, err := root.Lookup(t.Context(), bad); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestLargeDirectory(t *testing.T) {
	t.Parallel()
	d := layersIn(t, memory(t), 2)
	const n = 100_000
	for i := range n {
		l := d[i%2]
		check(t, os.WriteFile(fmt.Sprintf("%s/%06d", l, i), nil, 0o600))
	}
	root := openTree(t, 0, d...).Root().(vnode.Directory)
	list, err := root.ReadDir(t.Context())
	if err != nil || len(list) != n {
		t.Fatalf("%d entries, %v", len(list), err)
	}
	inos := map[uint64]bool{}
	for _, e := range list {
		inos[e.Ino] = true
	}
	if len(inos) != n {
		t.Errorf("%d inode numbers", len(inos))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := root.ReadDir(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupted listing: %v", err)
	}
}

// TestSymlinksLeadNowhere: what is a symlink in one layer is never walked
// through for another, nor is a redirect.
func TestSymlinksLeadNowhere(t *testing.T) {
	t.Parallel()
	needRoot(t)
	outside := t.TempDir()
	put(t, outside, map[string]string{"secret": "outside", "etc/passwd": "outside"})
	d := layerDirs(t, 3)
	put(t, d[0], map[string]string{"dir/": "", "redir/": "", "rel/": ""})
	check(t, os.Symlink(outside, d[1]+"/dir"))
	check(t, os.Symlink(outside, d[1]+"/out"))
	check(t, os.Symlink("/", d[2]+"/slash"))
	setx(t, d[0]+"/redir", "trusted.overlay.redirect", "/out/etc")
	setx(t, d[0]+"/rel", "trusted.overlay.redirect", "out")
	compareWithKernel(t, AllMarks, d, "redirect_dir=follow")
	root := openTree(t, 0, d...).Root()
	for _, path := range []string{"dir", "redir", "rel"} {
		if got := names(t, get(t, root, path).Node); got != "" {
			t.Errorf("%s lists %q", path, got)
		}
	}
	for _, bad := range []string{"..", "/..", "/a/../..", "../out", "/out/", "/./a"} {
		setx(t, d[0]+"/redir", "trusted.overlay.redirect", bad)
		_, err := root.(vnode.Directory).Lookup(t.Context(), "redir")
		if errno.Of(err) != syscall.EUCLEAN || !strings.Contains(err.Error(), "layer0") {
			t.Errorf("redirect %q: %v", bad, err)
		}
	}
}

func TestMissingLayerSaysSo(t *testing.T) {
	t.Parallel()
	d := layerDirs(t, 2)
	put(t, d[1], map[string]string{"f": "", "dir/g": ""})
	tr := openTree(t, 0, d...)
	root := tr.Root().(vnode.Directory)
	check(t, os.Remove(d[0]))
	for what, call := range map[string]func() error{
		"attr":    func() error { _, err := root.Attr(t.Context()); return err },
		"lookup":  func() error { _, err := root.Lookup(t.Context(), "f"); return err },
		"readdir": func() error { _, err := root.ReadDir(t.Context()); return err },
	} {
		err := call()
		if errno.Of(err) != syscall.EUCLEAN || !strings.Contains(err.Error(), "layer0") || !strings.Contains(err.Error(), d[0]) {
			t.Errorf("%s: %v", what, err)
		}
	}
	check(t, os.Mkdir(d[0], 0o755))
	if got := names(t, root); got != "dir f" {
		t.Errorf("when it is back: %q", got)
	}
	if _, err := Open(Config{}); errno.Of(err) != syscall.EINVAL {
		t.Errorf("no layers: %v", err)
	}
	if _, err := Open(Config{Layers: []Layer{{Name: "x"}}}); errno.Of(err) != syscall.EINVAL {
		t.Errorf("no directory: %v", err)
	}
}

func TestVolatileLayers(t *testing.T) {
	t.Parallel()
	d := layerDirs(t, 2)
	put(t, d[1], map[string]string{"low": "low", "sub/x": ""})
	put(t, d[0], map[string]string{"top": "top", "mine/y": ""})
	tr := opened(t, Config{Layers: []Layer{{Name: "t", Dir: d[0], Volatile: true}, {Name: "l", Dir: d[1]}}})
	root := tr.Root()
	for path, want := range map[string][2]vnode.Validity{
		"top": {vnode.ValidNone, vnode.ValidCall}, "low": {vnode.ValidNone, vnode.ValidForever},
		"nothing": {vnode.ValidNone, vnode.ValidForever}, "sub/x": {vnode.ValidForever, vnode.ValidForever},
	} {
		if c := get(t, root, path); c.Entry != want[0] || c.Attr != want[1] {
			t.Errorf("%s: entry %d attr %d, want %v", path, c.Entry, c.Attr, want)
		}
	}
	node, mine := get(t, root, "top").Node, get(t, root, "mine").Node
	h, err := node.(vnode.Opener).Open(t.Context(), os.O_RDONLY)
	check(t, err)
	if h.Flags()&vnode.KeepCache != 0 {
		t.Error("pages of a volatile file are kept")
	}
	put(t, d[0], map[string]string{"top": "longer than before"})
	if a, err := node.Attr(t.Context()); err != nil || a.Size != 18 {
		t.Errorf("size %d, %v", a.Size, err)
	}
	check(t, os.Remove(d[0]+"/top"))
	put(t, d[0], map[string]string{"other": ""})
	check(t, os.Rename(d[0]+"/other", d[0]+"/top"))
	if _, err := node.Attr(t.Context()); !errors.Is(err, syscall.ESTALE) {
		t.Errorf("a replaced file: %v", err)
	}
	if _, err := node.(vnode.Opener).Open(t.Context(), os.O_RDONLY); !errors.Is(err, syscall.ESTALE) {
		t.Errorf("opening a replaced file: %v", err)
	}
	if a, err := h.(vnode.HandleAttr).Attr(t.Context()); err != nil || a.Size != 18 || a.Nlink != 0 || a.Ino != node.Ino() {
		t.Errorf("the open file: %+v, %v", a, err)
	}
	check(t, h.Release(t.Context()))
	check(t, os.Rename(d[0]+"/mine", d[0]+"/yours"))
	check(t, os.Mkdir(d[0]+"/mine", 0o755))
	if _, err := mine.(vnode.Directory).ReadDir(t.Context()); !errors.Is(err, syscall.ESTALE) {
		t.Errorf("listing a replaced directory: %v", err)
	}
}

// TestMovedFilesAreFollowed: a server keeps the first node of a file; when the
// file was renamed by others, a look-up of its new name must make that one good.
func TestMovedFilesAreFollowed(t *testing.T) {
	t.Parallel()
	needRoot(t)
	d := layerDirs(t, 2)
	put(t, d[1], map[string]string{"dir/low": ""})
	put(t, d[0], map[string]string{"file": "text", "dir/top": ""})
	tr := opened(t, Config{Layers: []Layer{{Dir: d[0], Volatile: true}, {Dir: d[1]}}})
	file, dir := get(t, tr.Root(), "file").Node, get(t, tr.Root(), "dir").Node
	check(t, os.Rename(d[0]+"/file", d[0]+"/file2"))
	if _, err := file.Attr(t.Context()); !errors.Is(err, syscall.ESTALE) {
		t.Errorf("before it is found again: %v", err)
	}
	if again := get(t, tr.Root(), "file2").Node; again.Ino() != file.Ino() {
		t.Fatal("a rename changed the number")
	}
	if _, err := file.Attr(t.Context()); err != nil || content(t, file) != "text" {
		t.Errorf("the first node of a renamed file: %v", err)
	}
	setx(t, d[0]+"/dir", "trusted.overlay.opaque", "y")
	get(t, tr.Root(), "dir")
	if got := names(t, dir); got != "top" {
		t.Errorf("the first node of a directory that became opaque lists %q", got)
	}
	runtime.KeepAlive(file)
	runtime.KeepAlive(dir)
	for range 100 {
		runtime.GC()
		tr.moved.mu.Lock()
		n := len(tr.moved.files)
		tr.moved.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("positions of files without nodes are kept")
}

func TestInodeNumbers(t *testing.T) {
	t.Parallel()
	d := layerDirs(t, 2)
	put(t, d[1], map[string]string{"f": "", "dir/": ""})
	check(t, os.Link(d[1]+"/f", d[1]+"/dir/hard"))
	check(t, os.Link(d[1]+"/f", d[0]+"/other-layer"))
	open := func(key string) vnode.Node {
		tr := opened(t, Config{Key: key, Layers: []Layer{{Dir: d[0]}, {Dir: d[1]}}})
		return tr.Root()
	}
	a, again, b := open("a"), open("a"), open("b")
	ino := func(root vnode.Node, path string) uint64 { return get(t, root, path).Node.Ino() }
	if ino(a, "f") != ino(a, "dir/hard") || ino(a, "f") == ino(a, "other-layer") {
		t.Error("hard links of one layer share a number, layers do not")
	}
	if ino(a, "f") != ino(again, "f") || ino(a, "f") == ino(b, "f") || a.Ino() != again.Ino() || a.Ino() == b.Ino() {
		t.Error("numbers belong to the key")
	}
}

func TestReadOnlyAndHoles(t *testing.T) {
	t.Parallel()
	d := layerDirs(t, 1)
	f, err := os.Create(d[0] + "/sparse")
	check(t, err)
	_, err = f.WriteAt([]byte("data"), 1<<20)
	check(t, errors.Join(err, f.Truncate(3<<20), f.Close()))
	node := get(t, openTree(t, 0, d...).Root(), "sparse").Node.(vnode.Opener)
	for _, flags := range []int{os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC} {
		if _, err := node.Open(t.Context(), flags); errno.Of(err) != syscall.EROFS {
			t.Errorf("open with %x: %v", flags, err)
		}
	}
	h, err := node.Open(t.Context(), os.O_RDONLY)
	check(t, err)
	if h.Flags()&vnode.KeepCache == 0 {
		t.Error("pages that never change are not kept")
	}
	s := h.(vnode.Seeker)
	data, err := s.Seek(t.Context(), 0, unix.SEEK_DATA)
	hole, err2 := s.Seek(t.Context(), data, unix.SEEK_HOLE)
	if data != 1<<20 || hole <= data || hole >= 3<<20 || errors.Join(err, err2) != nil {
		t.Errorf("data at %d, hole at %d, %v %v", data, hole, err, err2)
	}
	if _, err := s.Seek(t.Context(), 4<<20, unix.SEEK_DATA); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("past the end: %v", err)
	}
	if _, err := s.Seek(t.Context(), 0, unix.SEEK_SET); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("SEEK_SET: %v", err)
	}
	check(t, h.Release(t.Context()))
}

// TestDescriptorsAreBounded walks deep and wide with the smallest cache, from
// many goroutines, and counts.
func TestDescriptorsAreBounded(t *testing.T) {
	t.Parallel()
	d := layerDirs(t, 3)
	deep := strings.Repeat("x/", 300)
	put(t, d[0], map[string]string{deep + "end": "end"})
	for i := range 60 {
		put(t, d[1], map[string]string{fmt.Sprintf("w%d/f", i): fmt.Sprint(i)})
		put(t, d[2], map[string]string{fmt.Sprintf("w%d/g", i): ""})
	}
	cache := NewCache(0)
	c := Config{Cache: cache}
	for _, l := range d {
		c.Layers = append(c.Layers, Layer{Dir: l})
	}
	tr := opened(t, c)
	end := get(t, tr.Root(), deep+"end").Node
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 60 {
				path := fmt.Sprintf("w%d", (i+g*7)%60)
				if got := names(t, get(t, tr.Root(), path).Node); got != "f g" {
					t.Errorf("%s: %q", path, got)
				}
			}
		})
	}
	wg.Wait()
	if got := content(t, end); got != "end" {
		t.Errorf("deep file: %q", got)
	}
	if n := cache.Len(); n > 8+1 {
		t.Errorf("%d descriptors", n)
	}
	get(t, tr.Root(), "w0").Node.(vnode.Forgetter).Forget()
	h, err := end.(vnode.Opener).Open(t.Context(), os.O_RDONLY)
	check(t, err)
	check(t, tr.Close())
	if n := cache.Len(); n != 0 {
		t.Errorf("%d descriptors after Close", n)
	}
	buf := make([]byte, 10)
	if n, err := h.ReadAt(t.Context(), buf, 0); err != nil || string(buf[:n]) != "end" {
		t.Errorf("a handle after Close: %q, %v", buf[:n], err)
	}
	check(t, h.Release(t.Context()))
	if _, err := tr.Root().(vnode.Directory).Lookup(t.Context(), "w1"); !errors.Is(err, syscall.ESTALE) {
		t.Errorf("after Close: %v", err)
	}
}

func TestSpecialFiles(t *testing.T) {
	t.Parallel()
	needRoot(t)
	d := layerDirs(t, 2)
	check(t, unix.Mknod(d[1]+"/fifo", unix.S_IFIFO|0o600, 0))
	check(t, unix.Mknod(d[1]+"/sock", unix.S_IFSOCK|0o600, 0))
	check(t, unix.Mknod(d[1]+"/blk", unix.S_IFBLK|0o600, int(unix.Mkdev(7, 300))))
	check(t, os.Symlink(strings.Repeat("t/", 1500), d[1]+"/link"))
	compareWithKernel(t, AllMarks, d)
	for _, name := range []string{"fifo", "sock", "blk", "link"} {
		if _, ok := get(t, openTree(t, 0, d...).Root(), name).Node.(vnode.Opener); ok {
			t.Errorf("%s can be opened by the server", name)
		}
	}
}
