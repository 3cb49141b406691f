package layertar_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// stamped gives everything in dir a mode, a time and some an attribute, by its name.
func stamped(t testing.TB, dir string) {
	t.Helper()
	var paths []string
	if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(paths) // what is in a directory before it
	for _, path := range paths {
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.Sum256([]byte(rel))
		st, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		sys, ok := st.Sys().(*syscall.Stat_t)
		if !ok {
			t.Fatal("no stat")
		}
		if sys.Nlink > 1 && !st.IsDir() {
			h = sha256.Sum256(nil) // by whichever name
		}
		if st.Mode()&fs.ModeSymlink == 0 {
			if h[0] < 64 {
				if err := unix.Setxattr(path, "user.x", h[:8], 0); err != nil {
					t.Skipf("no attributes of users here: %v", err)
				}
			}
			if err := os.Chmod(path, modeOf(st, h[1])); err != nil {
				t.Fatal(err)
			}
		}
		when := []unix.Timespec{{Sec: 1000}, {Sec: 1_000_000 + int64(h[2]), Nsec: int64(h[3])}}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, when, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Fatal(err)
		}
	}
}

// copiedOtherwise makes a copy of a tree whose names are made in another order.
func copiedOtherwise(t testing.TB, rnd *rand.Rand, from, to string) {
	t.Helper()
	type file struct {
		rel string
		st  fs.FileInfo
	}
	var dirs, files []file
	if err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		st, err := d.Info()
		if d.IsDir() {
			dirs = append(dirs, file{rel, st})
		} else {
			files = append(files, file{rel, st})
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	fine := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range dirs {
		fine(os.MkdirAll(filepath.Join(to, d.rel), 0o755))
	}
	rnd.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	linked := map[uint64]string{}
	for _, f := range files {
		path := filepath.Join(to, f.rel)
		sys, ok := f.st.Sys().(*syscall.Stat_t)
		if !ok {
			t.Fatal("no stat")
		}
		if first, ok := linked[sys.Ino]; ok {
			fine(os.Link(first, path))
			continue
		}
		linked[sys.Ino] = path
		if f.st.Mode()&fs.ModeSymlink != 0 {
			text, err := os.Readlink(filepath.Join(from, f.rel))
			fine(err)
			fine(os.Symlink(text, path))
			continue
		}
		data, err := os.ReadFile(filepath.Join(from, f.rel))
		fine(err)
		fine(os.WriteFile(path, data, 0o600))
	}
	stamped(t, to)
}

// TestSameBytes: a generated stream depends on the layer only: a copy of it
// whose names were made in another order, with other inodes, at another time,
// on another filesystem, gives the same bytes, and so does the same one again.
func TestSameBytes(t *testing.T) {
	t.Parallel()
	places := []string{t.TempDir(), t.TempDir()}
	if shm, err := os.MkdirTemp("/dev/shm", "same-"); err == nil { // another mount, of another kind mostly
		t.Cleanup(func() {
			if err := os.RemoveAll(shm); err != nil {
				t.Error(err)
			}
		})
		places = append(places, shm)
	}
	for seed := range uint64(4) {
		rnd := rand.New(rand.NewPCG(seed, 99))
		var at [][]string // the layers, of each place
		for i, place := range places {
			dir := filepath.Join(place, string('a'+rune(seed)))
			layers := []string{filepath.Join(dir, "up"), filepath.Join(dir, "low")}
			for n, layer := range layers {
				if err := os.MkdirAll(layer, 0o755); err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					wideTree(t, rnd, layer, 2, &[]string{})
					stamped(t, layer)
				} else {
					copiedOtherwise(t, rnd, at[0][n], layer)
				}
			}
			at = append(at, layers)
			time.Sleep(time.Millisecond) // other times of change
		}
		for what, source := range map[string]func(layers []string) layertar.Source{
			"native": func(l []string) layertar.Source {
				return layertar.Source{Upper: l[0], UpperStyle: whiteout.Files, Lowers: l[1:]}
			},
			"compared": func(l []string) layertar.Source { return layertar.Source{New: l[:1], Old: l[1:]} },
			"union":    func(l []string) layertar.Source { return layertar.Source{New: l, UpperStyle: whiteout.Files} },
		} {
			want := generate(t, source(at[0]))
			if len(want) < 20<<10 {
				t.Fatalf("%s: only %d bytes", what, len(want))
			}
			for i, layers := range append(at, at[0]) {
				var out bytes.Buffer
				if err := layertar.Generate(context.Background(), &out, source(layers)); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(out.Bytes(), want) {
					t.Errorf("seed %d, %s, copy %d: other bytes: %d for %d", seed, what, i, out.Len(), len(want))
				}
			}
		}
	}
}

// modeOf is a mode that its owner can work with.
func modeOf(st fs.FileInfo, by byte) fs.FileMode {
	if st.IsDir() {
		return 0o700 | fs.FileMode(by)&0o077
	}
	return 0o600 | fs.FileMode(by)&0o177
}
