package conformance

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// disk is a filesystem of a test's own.
type disk struct {
	name string
	// long: only with PLYFS_LONG.
	long bool
	// mount mounts it on dir, or skips t.
	mount func(t *testing.T, dir string)
	known map[string]string
}

// disks are what uppers lie on, beside the folder for temporary files.
func disks() []disk {
	return []disk{
		{name: "tmpfs", mount: func(t *testing.T, dir string) {
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1g"); err != nil {
				t.Fatal(err)
			}
		}, known: map[string]string{"statfs": "it is the upper's", "fallocate-zero": "tmpfs cannot"}},
		{name: "overlay", long: true, mount: func(t *testing.T, dir string) {
			base := t.TempDir()
			for _, d := range []string{"l", "u", "w"} {
				if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			opts := fmt.Sprintf("lowerdir=%[1]s/l,upperdir=%[1]s/u,workdir=%[1]s/w", base)
			if err := unix.Mount("overlay", dir, "overlay", 0, opts); err != nil {
				t.Fatal(err)
			}
		}, known: map[string]string{
			// No device 0:0 can be made on an overlay, so whiteouts are .wh. files.
			"longest-names":           "names of over 251 bytes cannot be removed",
			"bug-kernel-lists-ghosts": "the kernel takes no overlay as an upper",
		}},
		{name: "ours", long: true, mount: nested, known: map[string]string{
			"bug-kernel-lists-ghosts": "the kernel takes no FUSE mount as an upper",
			"wh-files-are-not-seen":   "no .wh. file can be made on ours",
		}},
		{name: "xfs", long: true, mount: image("mkfs.xfs", "-q"), known: map[string]string{"statfs": "it is the upper's", "symlink-long": "xfs has symlinks of up to 1024 bytes"}},
		{name: "btrfs", long: true, mount: image("mkfs.btrfs", "-q"), known: map[string]string{"statfs": "it is the upper's"}},
		{name: "ext4", long: true, mount: image("mkfs.ext4", "-q"), known: map[string]string{"statfs": "it is the upper's"}},
	}
}

// nested mounts ours, as in a container in a container: whiteouts on it are
// files with an attribute.
func nested(t *testing.T, dir string) {
	path, err := ours()
	if err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	for _, d := range []string{"l", "u", "w"} {
		if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	opts := fmt.Sprintf("lowerdir=%[1]s/l,upperdir=%[1]s/u,workdir=%[1]s/w,suid,dev", base)
	if out, err := exec.Command(path, "-o", opts, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// image returns what makes a filesystem in a file and mounts it by a loop
// device.
func image(mkfs string, args ...string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		file := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, 16<<30); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(mkfs, append(args, file)...).CombinedOutput(); err != nil {
			t.Skipf("%s: %v: %s", mkfs, err, out)
		}
		if out, err := exec.Command("mount", "-o", "loop", file, dir).CombinedOutput(); err != nil {
			t.Skipf("no loop mount here: %v: %s", err, out)
		}
	}
}

// TestUppers runs the suite with uppers on other filesystems than the lowers'.
func TestUppers(t *testing.T) {
	need(t)
	ps := programs(t)
	p := ps[len(ps)-1]
	for _, d := range disks() {
		t.Run(d.name, func(t *testing.T) {
			if d.long && os.Getenv("PLYFS_LONG") == "" {
				t.Skip("runs with PLYFS_LONG=1")
			}
			t.Parallel()
			dir := t.TempDir()
			for up := dir; up != os.TempDir() && up != "/"; up = filepath.Dir(up) {
				if err := os.Chmod(up, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			d.mount(t, dir)
			t.Cleanup(func() { unmount(t, dir) })
			known := maps.Clone(p.known)
			maps.Copy(known, d.known)
			w := world{name: p.name + "-on-" + d.name, layers: 1, mount: p.mount, known: known}
			w.upper = func(e *env) string {
				sub, err := os.MkdirTemp(dir, "")
				e.ok(err)
				e.ok(os.Chmod(sub, 0o755))
				return sub
			}
			t.Run("suite", func(t *testing.T) {
				for _, x := range cases() {
					if why, known := w.known[x.name]; known {
						t.Logf("%s: left out here: %s", x.name, why)
						continue
					}
					t.Run(x.name, func(t *testing.T) { runCase(t, w, x) })
				}
			})
		})
	}
}

// TestSeveralDevices has two lower layers and an upper on filesystems of their
// own, whose files have the same inode numbers: those of the mount differ, are
// the same in listings, and stay, over copies and a remount.
func TestSeveralDevices(t *testing.T) {
	need(t)
	ps := programs(t)
	for _, w := range []world{{name: "kernel", mount: kernelMount}, {name: "fuse-overlay", mount: ps[len(ps)-1].mount}} {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			w.layers = 2
			e := newEnv(t, w)
			up := filepath.Dir(e.upper) + "/up"
			e.ok(os.Mkdir(up, 0o755))
			e.upper, e.work = up+"/u", up+"/w"
			for _, d := range append([]string{up}, e.dirs...) {
				e.ok(unix.Mount("tmpfs", d, "tmpfs", 0, "mode=755"))
				t.Cleanup(func() { unmount(t, d) })
			}
			e.ok(os.Mkdir(e.upper, 0o755))
			e.ok(os.Mkdir(e.work, 0o755))
			for i, d := range e.dirs {
				for k := range 20 {
					e.put(fmt.Sprintf("%s/d%d/f%d", d, i, k), "x")
				}
			}
			if a, b := e.stat(e.dirs[0]+"/d0/f7").Ino, e.stat(e.dirs[1]+"/d1/f7").Ino; a != b {
				t.Skipf("the filesystems give different numbers (%d, %d), so that this shows nothing", a, b)
			}
			t.Cleanup(e.unmount)
			e.mount()
			for k := range 20 {
				e.put(e.p(fmt.Sprint("d2/f", k)), "x")
			}
			first := e.numbers()
			for _, n := range []string{"d0/f1", "d1/f1", "d1/f2"} {
				e.put(e.p(n), "changed")
			}
			e.ok(unix.Chmod(e.p("d0"), 0o700))
			same := func(when string) {
				for p, ino := range e.numbers() {
					if ino != first[p] {
						e.Errorf("%s is %d %s, was %d", p, ino, when, first[p])
					}
				}
			}
			same("after copies")
			e.remount()
			same("after a remount")
		})
	}
}

// numbers returns the inode number of every file of the tree, which are all
// different, of one device, and the ones in listings.
func (e *env) numbers() map[string]uint64 {
	e.Helper()
	out, seen, dev := map[string]uint64{}, map[uint64]string{}, e.stat(e.root).Dev
	for _, dir := range []string{".", "d0", "d1", "d2"} {
		for name, x := range e.dirents(e.p(dir), 1<<16) {
			if name == "." || name == ".." {
				continue
			}
			p := dir + "/" + name
			st := e.stat(e.p(p))
			if other := seen[st.Ino]; other != "" || st.Dev != dev || st.Ino != x[0] {
				e.Errorf("%s: number %d of device %x, listed as %d; %q has it too; the root is on %x", p, st.Ino, st.Dev, x[0], other, dev)
			}
			out[p], seen[st.Ino] = st.Ino, p
		}
	}
	return out
}
