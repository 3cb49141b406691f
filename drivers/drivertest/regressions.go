//go:build linux

package drivertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
)

func regressions(t *testing.T, m Maker) {
	for _, c := range []struct {
		name  string
		union bool // only where layers are merged
		fn    func(*testing.T, Maker)
	}{
		{"LostLinks", true, lostLinks}, {"LostLinksAmongBrokenLayers", true, lostLinksBroken},
		{"EmptyLowerAfterPowerLoss", true, emptyLower}, {"VolatileTwice", true, volatileTwice},
		{"Depth", true, depth}, {"OddRoot", false, oddRoot}, {"FileCapabilities", false, capabilities},
		{"CopiedTimes", false, copiedTimes}, {"CopiedHardLinks", false, copiedHardLinks},
		{"CopiedHoles", false, copiedHoles}, {"OddNames", false, oddNames}, {"MissingMerged", true, missingMerged},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.union && !m.Union {
				t.Skip("this driver's layers are whole copies: it has no links and mounts nothing")
			}
			c.fn(t, m)
		})
	}
}

// The links are lost at a power failure, with their folder.
//
// https://github.com/containers/storage/pull/326
// https://github.com/containers/storage/pull/333
// https://github.com/containers/podman/issues/5986
func lostLinks(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	s.Layer("a", "", func(p drivers.Private) { write(t, filepath.Join(p.Dir, "f"), "1") })
	s.Layer("b", "a", nil)
	s.Layer("c", "b", nil)
	folder := filepath.Join(s.Config.Root, "overlay", "l")
	must(t, os.RemoveAll(folder))
	dirs, err := s.Driver.Dirs("c")
	if err != nil || len(dirs) != 3 {
		t.Fatalf("Dirs: %q, %v", dirs, err)
	}
	dir, _ := s.Mount("c", drivers.MountOptions{})
	if read(t, filepath.Join(dir, "f")) != "1" {
		t.Fatal("content")
	}
	if got := len(strings.Fields(names(t, folder))); got != 2 {
		t.Fatalf("%d links made again, want those of a and b", got)
	}
}

// Making links again stopped at the first layer without a link file.
//
// https://github.com/containers/storage/pull/859
func lostLinksBroken(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	s.Layer("0broken", "", nil)
	s.Layer("a", "", func(p drivers.Private) { write(t, filepath.Join(p.Dir, "f"), "1") })
	s.Layer("b", "a", nil)
	home := filepath.Join(s.Config.Root, "overlay")
	must(t, os.Remove(filepath.Join(home, "0broken", "link")))
	must(t, os.RemoveAll(filepath.Join(home, "l")))
	dir, _ := s.Mount("b", drivers.MountOptions{})
	if read(t, filepath.Join(dir, "f")) != "1" {
		t.Fatal("content")
	}
	if _, err := s.Driver.Has("0broken"); !errors.Is(err, errno.ErrDamaged) {
		t.Fatalf("want ErrDamaged, have %v", err)
	}
	must(t, s.Driver.Retire(s.Stage(), "0broken"))
}

// A power loss leaves the file lower empty, and the home itself was taken for
// the layer below.
//
// https://github.com/containers/storage/issues/1064
func emptyLower(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	s.Layer("a", "", nil)
	s.Layer("b", "a", nil)
	lower := filepath.Join(s.Config.Root, "overlay", "b", "lower")
	for _, damage := range []func() error{
		func() error { return os.Truncate(lower, 0) },
		func() error { return os.WriteFile(lower, []byte("l/../../../etc"), 0o600) },
	} {
		must(t, damage())
		if has, err := s.Driver.Has("b"); has || !errors.Is(err, errno.ErrDamaged) {
			t.Fatalf("Has: %v, %v", has, err)
		}
	}
	must(t, os.Remove(lower)) // which only the record tells from a base layer
	family := drivers.Family{ID: "b", Parent: "a"}
	if flaws, err := drivers.Flaws(s.Driver, family); len(flaws) != 1 || err != nil {
		t.Fatalf("flaws %q, %v", flaws, err)
	}
	must(t, drivers.Mend(s.Driver, family))
	if flaws, err := drivers.Flaws(s.Driver, family); len(flaws) != 0 || err != nil {
		t.Fatalf("after mending: flaws %q, %v", flaws, err)
	}
	must(t, s.Driver.Retire(s.Stage(), "b"))
}

// A layer mounted volatile once could not be mounted again.
//
// https://github.com/containers/podman/issues/9507
func volatileTwice(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	s.Layer("a", "", nil)
	s.Layer("b", "a", nil)
	for _, volatile := range []bool{true, true, false, true} {
		dir, unmount := s.Mount("b", drivers.MountOptions{Volatile: volatile})
		write(t, filepath.Join(dir, "f"), "1")
		unmount()
	}
}

// The string of mount options is a page: 122 layers, then "max depth exceeded".
//
// https://github.com/moby/moby/issues/26380
// https://github.com/moby/buildkit/issues/4810
func depth(t *testing.T, m Maker) {
	const most = 500
	s := Open(t, m, "root")
	parent := ""
	for i := range most + 1 {
		id := fmt.Sprintf("layer-with-a-name-as-long-as-an-identifier-of-a-layer-really-is-%03d", i)
		s.Layer(id, parent, func(p drivers.Private) {
			if len(p.Parents) != i {
				t.Fatalf("%d parents of layer %d", len(p.Parents), i)
			}
			write(t, filepath.Join(p.Dir, fmt.Sprintf("f%03d", i)), "1")
		})
		parent = id
	}
	_, err := s.Driver.Create(context.Background(), s.Stage(), drivers.LayerSpec{ID: "x", Parent: parent})
	if !errors.Is(err, errno.ErrNotSupported) {
		t.Fatalf("one more: want ErrNotSupported, have %v", err)
	}
	dir, _ := s.Mount(parent, drivers.MountOptions{})
	if got := len(strings.Fields(names(t, dir))); got != most+1 {
		t.Fatalf("%d files of %d layers", got, most+1)
	}
}

// Paths with the bytes that lists and options are split at.
//
// https://github.com/moby/moby/issues/40939
// https://github.com/containers/podman/issues/11913
// https://github.com/composefs/composefs/issues/213
func oddRoot(t *testing.T, m Maker) {
	root := `a,b:c\d e="f"`
	if m.NoColon {
		root = strings.ReplaceAll(root, ":", "")
	}
	s := Open(t, m, root)
	s.Layer("a", "", func(p drivers.Private) { write(t, filepath.Join(p.Dir, "f"), "1") })
	s.Layer("b", "a", nil)
	dir, _ := s.Mount("b", drivers.MountOptions{})
	write(t, filepath.Join(dir, "g"), "2")
	if read(t, filepath.Join(dir, "f")) != "1" {
		t.Fatal("content")
	}
}

// Copies of a layer lost file capabilities.
//
// https://github.com/moby/moby/issues/42655
func capabilities(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	// VFS_CAP_REVISION_2, cap_net_raw permitted (linux/capability.h)
	capability := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	s.Layer("a", "", func(p drivers.Private) {
		f := filepath.Join(p.Dir, "ping")
		write(t, f, "#!")
		must(t, os.Chown(f, 12, 34))
		must(t, os.Chmod(f, 0o755|os.ModeSetuid))
		must(t, unix.Setxattr(f, "security.capability", capability, 0))
	})
	s.Create(drivers.LayerSpec{ID: "a", From: "a"}, func(p drivers.Private) {
		f := filepath.Join(p.Dir, "ping")
		buf := make([]byte, 64)
		n, err := unix.Getxattr(f, "security.capability", buf)
		must(t, err)
		st, err := os.Stat(f)
		must(t, err)
		if string(buf[:n]) != string(capability) || st.Mode() != 0o755|os.ModeSetuid || owner(t, f) != "12:34" {
			t.Fatalf("capability %x, mode %v, owner %s", buf[:n], st.Mode(), owner(t, f))
		}
	})
}

// Copies of a layer lost the times of symlinks.
//
// https://github.com/moby/moby/pull/8802
func copiedTimes(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	when := time.Unix(1234567890, 123456789)
	ts := unix.NsecToTimespec(when.UnixNano())
	paths := []string{"d/link", "d/fifo", "d/file", "d"}
	s.Layer("a", "", func(p drivers.Private) {
		must(t, os.Mkdir(filepath.Join(p.Dir, "d"), 0o711))
		must(t, os.Symlink("/nowhere", filepath.Join(p.Dir, "d/link")))
		must(t, unix.Mkfifo(filepath.Join(p.Dir, "d/fifo"), 0o640))
		write(t, filepath.Join(p.Dir, "d/file"), "1")
		for _, path := range paths {
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(p.Dir, path), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
		}
	})
	s.Create(drivers.LayerSpec{ID: "a", From: "a"}, func(p drivers.Private) {
		for _, path := range paths {
			st, err := os.Lstat(filepath.Join(p.Dir, path))
			must(t, err)
			if !st.ModTime().Equal(when) {
				t.Errorf("%s: %v", path, st.ModTime())
			}
		}
	})
}

// Copies of a layer split hard links.
//
// https://github.com/moby/moby/pull/35537
func copiedHardLinks(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	s.Layer("a", "", func(p drivers.Private) {
		must(t, os.Mkdir(filepath.Join(p.Dir, "d"), 0o755))
		write(t, filepath.Join(p.Dir, "one"), "1")
		must(t, os.Link(filepath.Join(p.Dir, "one"), filepath.Join(p.Dir, "d", "two")))
		must(t, unix.Mkfifo(filepath.Join(p.Dir, "pipe"), 0o600))
		must(t, os.Link(filepath.Join(p.Dir, "pipe"), filepath.Join(p.Dir, "d", "pipe")))
	})
	s.Create(drivers.LayerSpec{ID: "a", From: "a"}, func(p drivers.Private) {
		for _, pair := range [][2]string{{"one", "d/two"}, {"pipe", "d/pipe"}} {
			a, err := os.Lstat(filepath.Join(p.Dir, pair[0]))
			must(t, err)
			b, err := os.Lstat(filepath.Join(p.Dir, pair[1]))
			must(t, err)
			if !os.SameFile(a, b) {
				t.Errorf("%q are two files", pair)
			}
		}
	})
}

// Copies of a layer filled the holes of sparse files.
//
// https://github.com/moby/moby/pull/35537
func copiedHoles(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	const size = 1 << 30
	s.Layer("a", "", func(p drivers.Private) {
		f, err := os.Create(filepath.Join(p.Dir, "sparse"))
		must(t, err)
		_, err = f.WriteAt([]byte("middle"), size/2)
		must(t, err)
		must(t, f.Truncate(size))
		must(t, f.Close())
	})
	s.Create(drivers.LayerSpec{ID: "a", From: "a"}, func(p drivers.Private) {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(p.Dir, "sparse"), &st))
		if st.Size != size || st.Blocks*512 > 1<<20 {
			t.Fatalf("size %d, %d bytes on disk", st.Size, st.Blocks*512)
		}
		f, err := os.Open(filepath.Join(p.Dir, "sparse"))
		must(t, err)
		buf := make([]byte, 6)
		_, err = f.ReadAt(buf, size/2)
		must(t, errors.Join(err, f.Close()))
		if string(buf) != "middle" {
			t.Fatalf("data %q", buf)
		}
	})
}

// Names that are no text, as long as they may be, or look like options.
//
// https://github.com/containers/fuse-overlayfs/issues/227
func oddNames(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	odd := []string{"new\nline", "\xff\xfe", `back\slash`, "a:b,c=d", "-o", strings.Repeat("n", 250), "ünï", " "}
	s.Layer("a,b:c=d", "", func(p drivers.Private) {
		for _, name := range odd {
			write(t, filepath.Join(p.Dir, name), name)
		}
	})
	s.Layer("child", "a,b:c=d", nil)
	dir, _ := s.Mount("child", drivers.MountOptions{})
	s.Create(drivers.LayerSpec{ID: "a,b:c=d", From: "a,b:c=d"}, func(p drivers.Private) {
		for _, name := range odd {
			if read(t, filepath.Join(p.Dir, name)) != name || read(t, filepath.Join(dir, name)) != name {
				t.Errorf("%q", name)
			}
		}
	})
}

// Peers remove merged at unmount; work was seen missing after a cleanup.
//
// https://github.com/containers/podman/issues/22046
func missingMerged(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	s.Layer("a", "", nil)
	s.Layer("b", "a", nil)
	home := filepath.Join(s.Config.Root, "overlay")
	for _, gone := range []string{"a/merged", "a/work", "a/empty", "b/merged", "b/work"} {
		must(t, os.RemoveAll(filepath.Join(home, gone)))
	}
	for _, id := range []string{"b"} {
		dir, unmount := s.Mount(id, drivers.MountOptions{})
		write(t, filepath.Join(dir, "f"), "1")
		unmount()
	}
}

func owner(tb testing.TB, path string) string {
	tb.Helper()
	var st unix.Stat_t
	must(tb, unix.Lstat(path, &st))
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}
