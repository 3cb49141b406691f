package store_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/store"
)

// onReflinks is a store on a filesystem of its own that can share blocks.
func onReflinks(t *testing.T, driver, mkfs string) *lifeEnv {
	t.Helper()
	e := newLifeEnv(t, driver)
	_, at := fusetest.Loop(t, filepath.Dir(e.root), 512, mkfs+" -q", "")
	e.root = filepath.Join(at, "root")
	return e
}

// Equal files come to share their blocks, by every method and run after run
// the same; what they hold stays as it was.
func TestDedup(t *testing.T) {
	t.Parallel()
	for _, mkfs := range []string{"mkfs.btrfs", "mkfs.xfs"} {
		for driver := range constructors() {
			t.Run(mkfs+"/"+driver, func(t *testing.T) {
				t.Parallel()
				e := onReflinks(t, driver, mkfs)
				s := e.open()
				big := strings.Repeat("0123456789abcdef", 20<<10)
				importLayer(t, s, store.LayerSpec{ID: "a"}, makeTar(t, entry{name: "one", text: big}, entry{name: "other", text: "x" + big[1:]}, entry{name: "small", text: "s"}))
				importLayer(t, s, store.LayerSpec{ID: "b"}, makeTar(t, entry{name: "d/"}, entry{name: "d/two", text: big}, entry{name: "small", text: "s"}))
				importLayer(t, s, store.LayerSpec{ID: "c"}, makeTar(t, entry{name: "three", text: big}, entry{name: "link", link: "three"}))
				unix.Sync()
				for _, m := range []store.DedupMethod{"", store.DedupCRC, store.DedupSHA256, store.DedupSize} {
					var seen [2]int64
					got, err := s.Dedup(context.Background(), store.DedupOptions{Method: m, Progress: func(done, all int64) { seen = [2]int64{done, all} }})
					if want := uint64(2 * len(big)); err != nil || got.Deduped != want {
						t.Errorf("%q: %d, %v; want %d", m, got.Deduped, err, want)
					}
					if seen[0] != seen[1] || seen[0] != int64(4*len(big)) {
						t.Errorf("progress %v", seen)
					}
				}
				if a, b := extents(t, filepath.Join(e.content("a"), "one")), extents(t, filepath.Join(e.content("b"), "d/two")); a != b || a == "" {
					t.Errorf("the blocks are not shared: %s, %s", a, b)
				}
				if got := check(t, s, store.CheckOptions{Level: store.CheckFull}); got != "" {
					t.Error(got)
				}
			})
		}
	}
}

// extents says where a file's blocks are.
func extents(t *testing.T, path string) string {
	t.Helper()
	needs(t, "filefrag")
	out, err := exec.Command("filefrag", "-v", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var at []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Split(line, ":"); len(f) > 3 {
			at = append(at, strings.TrimSpace(f[2]))
		}
	}
	return strings.Join(at[1:], " ")
}

// Where blocks cannot be shared that is said, and nothing is left behind.
func TestDedupUnsupported(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		dir := filepath.Join(filepath.Dir(e.root), "ram")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
			t.Skip("no tmpfs to be mounted here: ", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		e.root = filepath.Join(dir, "root")
		prepare(t, e)
		s := e.open()
		before := treeSum(t, e.root)
		_, err := s.Dedup(context.Background(), store.DedupOptions{})
		wantErr(t, err, errno.ErrNotSupported, "btrfs")
		_, err = s.Dedup(context.Background(), store.DedupOptions{Method: "md5"})
		wantErr(t, err, errno.ErrBadValue, "md5")
		if treeSum(t, e.root) != before {
			t.Error("the store has changed")
		}
	})
}

// With the option, what is imported shares the blocks of what is there; where
// the filesystem cannot, it is imported all the same.
func TestDedupAtImport(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("0123456789abcdef", 20<<10)
	fill := func(e *lifeEnv) {
		t.Helper()
		o := e.options()
		o.Dedup = true
		s := get(t, store.Open, context.Background(), o)
		defer func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}()
		importLayer(t, s, store.LayerSpec{ID: "a"}, makeTar(t, entry{name: "one", text: big}, entry{name: "other", text: "x" + big[1:]}))
		importLayer(t, s, store.LayerSpec{ID: "b"}, makeTar(t, entry{name: "two", text: big}, entry{name: "third", text: "y" + big[1:]}))
		if got := check(t, s, store.CheckOptions{Level: store.CheckFull}); got != "" {
			t.Error(got)
		}
	}
	for _, mkfs := range []string{"mkfs.btrfs", "mkfs.xfs"} {
		for driver := range constructors() {
			t.Run(mkfs+"/"+driver, func(t *testing.T) {
				t.Parallel()
				e := onReflinks(t, driver, mkfs)
				fill(e)
				one, two := extents(t, filepath.Join(e.content("a"), "one")), extents(t, filepath.Join(e.content("b"), "two"))
				if one != two || one == "" {
					t.Errorf("the blocks are not shared: %s, %s", one, two)
				}
				if other, third := extents(t, filepath.Join(e.content("a"), "other")), extents(t, filepath.Join(e.content("b"), "third")); other == third {
					t.Errorf("different files share their blocks: %s", third)
				}
			})
		}
	}
	t.Run("elsewhere", func(t *testing.T) {
		t.Parallel()
		fill(newLifeEnv(t, "vfs"))
	})
}
