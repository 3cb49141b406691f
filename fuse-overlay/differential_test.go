package fuseoverlay

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// names that random trees are made of: few, so that layers meet.
var pathParts = []string{"a", "b", "c", "d"}

func drawPath(t *rapid.T) string {
	p := ""
	for range rapid.IntRange(1, 3).Draw(t, "depth") {
		p = filepath.Join(p, rapid.SampledFrom(pathParts).Draw(t, "part"))
	}
	return p
}

// makeLayer fills dir with random files and every kind of mark of the kernel.
func makeLayer(t *rapid.T, dir string) {
	for i := range rapid.IntRange(0, 12).Draw(t, "steps") {
		p := filepath.Join(dir, drawPath(t))
		if os.MkdirAll(filepath.Dir(p), 0o755) != nil {
			continue // a file is in the way
		}
		makeFile(t, p, i)
	}
}

func makeFile(t *rapid.T, p string, i int) {
	mode := uint32(rapid.SampledFrom([]int{0o644, 0o4755, 0o000, 0o1777}).Draw(t, "mode"))
	var err error
	switch what := rapid.IntRange(0, 11).Draw(t, "what"); what {
	case 0, 1, 2:
		err = os.WriteFile(p, fmt.Appendf(nil, "content %d of %s", i, p), 0o600)
	case 3:
		err = os.Mkdir(p, 0o755)
	case 4:
		err = os.Symlink("../"+drawPath(t), p)
	case 5, 6:
		err = mkWhiteout(p)
	case 7:
		err = unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
	case 8:
		if err = os.Mkdir(p, 0o755); err == nil {
			setx(t, p, "trusted.overlay.opaque", rapid.SampledFrom([]string{"y", "x", "n", ""}).Draw(t, "opaque"))
		}
	case 9:
		if err = os.Mkdir(p, 0o755); err == nil {
			setx(t, p, "trusted.overlay.redirect", drawRedirect(t))
		}
	case 10:
		err = makeMetacopy(t, p)
	case 11:
		err = os.Link(p, filepath.Join(filepath.Dir(p), rapid.SampledFrom(pathParts).Draw(t, "link")))
	}
	if err != nil {
		return // exists, or its parent is a whiteout: as good a layer
	}
	decorate(t, p, mode)
}

func decorate(t *rapid.T, p string, mode uint32) {
	var st unix.Stat_t
	check(t, unix.Lstat(p, &st))
	if st.Mode&unix.S_IFMT == unix.S_IFREG || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		check(t, unix.Chmod(p, mode))
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		check(t, unix.Lchown(p, rapid.IntRange(0, 3).Draw(t, "uid"), 7))
		if rapid.Bool().Draw(t, "xattr") {
			setx(t, p, "trusted.mine", "value")
			setx(t, p, "trusted.overlay.overlay.nested", "inner")
			setx(t, p, "trusted.overlay.private", "hidden")
		}
	}
}

func drawRedirect(t *rapid.T) string {
	switch rapid.IntRange(0, 5).Draw(t, "redirect") {
	case 0, 1:
		return rapid.SampledFrom(pathParts).Draw(t, "to")
	case 2:
		return rapid.SampledFrom([]string{"/", "//a", "/a/", "a/b", "/a//b"}).Draw(t, "bad")
	}
	return "/" + drawPath(t)
}

func makeMetacopy(t *rapid.T, p string) error {
	f, err := os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	check(t, f.Truncate(20))
	check(t, f.Close())
	setx(t, p, "trusted.overlay.metacopy", "")
	if rapid.Bool().Draw(t, "redirected") {
		setx(t, p, "trusted.overlay.redirect", drawRedirect(t))
	}
	return nil
}

// TestRandomLayersEqualKernel compares trees over layers whose marks were made
// by hand, also in combinations that no overlay writes.
func TestRandomLayersEqualKernel(t *testing.T) {
	t.Parallel()
	needRoot(t)
	base := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(base, fmt.Sprint(n))
		defer func() { check(t, os.RemoveAll(dir)) }()
		var dirs []string
		for i := range rapid.IntRange(2, 5).Draw(t, "layers") {
			l := filepath.Join(dir, fmt.Sprint(i))
			check(t, os.MkdirAll(l, 0o755))
			makeLayer(t, l)
			dirs = append(dirs, l)
		}
		formats := rapid.SampledFrom([]Format{Trusted, AllMarks}).Draw(t, "formats")
		compareWithKernel(t, formats, dirs, "metacopy=on", "redirect_dir=follow")
	})
}

// act does one random thing to a mounted tree, as a program would; most fail.
func act(t *rapid.T, root string, i int) {
	if actWithoutLinks(t, root, i, linkAct) == linkAct {
		_ = os.Link(filepath.Join(root, drawPath(t)), filepath.Join(root, drawPath(t)))
	}
}

// linkAct is the number of the act that makes a hard link: act's own.
const linkAct = 13

// actWithoutLinks does one random thing but hard links; it draws a number of
// at most last and returns it, having done nothing when it knows none of it.
func actWithoutLinks(t *rapid.T, root string, i, last int) int {
	p, q := filepath.Join(root, drawPath(t)), filepath.Join(root, drawPath(t))
	which := rapid.IntRange(0, last).Draw(t, "act")
	switch which {
	case 0, 1:
		_ = os.WriteFile(p, fmt.Appendf(nil, "written %d", i), 0o640)
	case 2, 3:
		_ = os.MkdirAll(p, 0o755)
	case 4:
		_ = os.RemoveAll(p)
	case 5, 6, 7:
		_ = os.Rename(p, q)
	case 8:
		_ = os.Chmod(p, 0o700)
	case 9:
		_ = os.Lchown(p, i, 2*i)
	case 10:
		// Not q itself: fuse-overlayfs follows links of its layers, and one
		// that leads into its own mount would be its end.
		_ = os.Symlink(strings.TrimPrefix(q, root), p)
	case 11:
		_ = unix.Lsetxattr(p, "user.plain", []byte("x"), 0)
		_ = unix.Lsetxattr(p, "trusted.overlay.redirect", []byte("/inner"), 0)
	case 12:
		if os.RemoveAll(p) == nil {
			_ = os.Mkdir(p, 0o711)
		}
	}
	return which
}

// TestKernelMadeLayersEqualKernel lets the kernel's overlay make the layers,
// one on top of the other, by random work on a writable mount, and compares
// the union of what it left.
func TestKernelMadeLayersEqualKernel(t *testing.T) {
	t.Parallel()
	needRoot(t)
	base := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(base, fmt.Sprint(n))
		defer func() { check(t, os.RemoveAll(dir)) }()
		bottom := filepath.Join(dir, "bottom")
		check(t, os.MkdirAll(bottom, 0o755))
		dirs := []string{bottom}
		for i := range 12 {
			act(t, bottom, i)
		}
		options := rapid.SampledFrom([][]string{
			{"redirect_dir=on", "metacopy=on"}, {"redirect_dir=on", "metacopy=off"}, {"redirect_dir=off", "metacopy=off"},
		}).Draw(t, "options")
		for k := range rapid.IntRange(1, 4).Draw(t, "layers") {
			upper, work := filepath.Join(dir, fmt.Sprint("u", k)), filepath.Join(dir, fmt.Sprint("w", k))
			check(t, os.Mkdir(upper, 0o755))
			check(t, os.Mkdir(work, 0o755))
			root, end := kernelMount(t, dirs, append(options, "index=off", "upperdir="+upper, "workdir="+work)...)
			for i := range rapid.IntRange(1, 10).Draw(t, "acts") {
				act(t, root, i)
			}
			end()
			dirs = append([]string{upper}, dirs...)
		}
		compareWithKernel(t, rapid.SampledFrom([]Format{Trusted, AllMarks}).Draw(t, "formats"), dirs, "metacopy=on", "redirect_dir=follow")
	})
}
