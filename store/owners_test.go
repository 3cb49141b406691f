package store_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/store"
)

// TestSweepSparesTheLiving: opening the store again sweeps nothing that has a
// living owner.
func TestSweepSparesTheLiving(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		st := get(t, e.open().StageLayer, ctx, store.LayerSpec{ID: "layer"})
		other := e.open()
		waitRemovals(t, other)
		stream := makeTar(t, entry{name: "f", text: "f"})
		if _, err := st.Import(ctx, bytes.NewReader(stream)); err != nil {
			t.Fatal(err)
		}
		waitRemovals(t, e.open())
		if _, err := st.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		if err := other.DeleteLayer(ctx, "layer"); err != nil {
			t.Fatal(err)
		}
	})
}

// TestJunkInExtractArea: a journal that cannot be read is kept with its entry
// and keeps no store shut; foreign files are left alone; an entry that lost its
// lock file is removed.
func TestJunkInExtractArea(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		area := filepath.Join(e.root, "plyfs")
		for path, text := range map[string]string{
			"0123456789abcdef/s/journal.json": "{",
			"1123456789abcdef/s/journal.json": `{"version":1,"op":"delete","kind":0,"id":"../../x"}`,
			"2123456789abcdef/s/journal.json": `{"version":1,"op":"fly","kind":0,"id":"x"}`,
			"3123456789abcdef/d/x/diff/file":  "orphan",
			"notes/readme":                    "foreign",
		} {
			if err := os.MkdirAll(filepath.Join(area, filepath.Dir(path)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(area, path), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			s := e.open()
			waitRemovals(t, s)
			get(t, s.CreateLayer, context.Background(), store.LayerSpec{})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		var left []string
		entries, err := os.ReadDir(area)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range entries {
			if f.IsDir() {
				left = append(left, f.Name())
			}
		}
		if want := []string{"0123456789abcdef", "1123456789abcdef", "2123456789abcdef", "notes"}; !slices.Equal(left, want) {
			t.Errorf("left %v, want %v", left, want)
		}
	})
}

// TestRunRootRemoved: a restart's empty run root forgets counts; a mount that
// still stands is taken over, not stacked, and a deletion unmounts it.
func TestRunRootRemoved(t *testing.T) {
	t.Parallel()
	e := newLifeEnv(t, "overlay")
	ctx := context.Background()
	s := e.open()
	get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "layer"})
	for i := range 2 {
		path, err := s.Mount(ctx, "layer", drivers.MountOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n := mountsAt(t, path); n != 1 {
			t.Fatalf("%d mounts at %s", n, path)
		}
		// In one step, since the open store makes files there.
		if err := os.Rename(e.run, fmt.Sprint(e.run, ".lost", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DeleteLayer(ctx, "layer"); err != nil {
		t.Fatal(err)
	}
	waitRemovals(t, s)
	if left, err := os.ReadDir(filepath.Join(e.root, "plyfs")); err != nil || len(left) != 0 {
		t.Errorf("left in the extract area: %v, %v", left, err)
	}
}

func mountsAt(t testing.TB, path string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), " "+path+" ")
}

// TestForeignNamespace: an upper directory that is mounted in another mount
// namespace is not mounted again, nor its layer deleted, until forced.
func TestForeignNamespace(t *testing.T) {
	t.Parallel()
	needs(t, "containers-storage")
	needs(t, "unshare")
	e := newLifeEnv(t, "overlay")
	ctx := context.Background()
	s := e.open()
	get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "layer"})
	c := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c",
		`containers-storage --graph "$1" --run "$2" --storage-driver overlay mount layer && read x`, "sh", e.root, e.run)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the peer printed %q: %v", line, err)
	}
	_, err = s.Mount(ctx, "layer", drivers.MountOptions{})
	wantErr(t, err, errno.ErrInUse, "another mount namespace")
	_, err = s.Unmount(ctx, "layer", false)
	wantErr(t, err, errno.ErrInUse, "another mount namespace")
	wantErr(t, s.DeleteLayer(ctx, "layer"), errno.ErrInUse, "mounted")
	if err := errors.Join(in.Close(), c.Wait()); err != nil {
		t.Log(err) // `read` met the end of its input
	}
	if n, err := s.Unmount(ctx, "layer", true); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := s.Mount(ctx, "layer", drivers.MountOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Unmount(ctx, "layer", false); err != nil {
		t.Fatal(err)
	}
}

// TestBusyUnmount: a mount with open files keeps its count, unless forced.
func TestBusyUnmount(t *testing.T) {
	t.Parallel()
	e := newLifeEnv(t, "overlay")
	ctx := context.Background()
	s := e.open()
	get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "layer"})
	path, err := s.Mount(ctx, "layer", drivers.MountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(path, "open"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Unmount(ctx, "layer", false)
	wantErr(t, err, errno.ErrInUse, path)
	checkCount(t, s, "layer", 1)
	if n, err := s.Unmount(ctx, "layer", true); n != 0 || err != nil {
		t.Error(n, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	checkCount(t, s, "layer", 0)
}

// TestChangesAsPeers: our words for what a mounted layer's user did are those
// of the peers, between a layer and its parent and between any two.
func TestChangesAsPeers(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		importLayer(t, s, store.LayerSpec{ID: "base"}, makeTar(t, entry{name: "d/"}, entry{name: "d/a", text: "a"}, entry{name: "d/b", text: "b"}, entry{name: "e/"}, entry{name: "e/f", text: "f"}))
		importLayer(t, s, store.LayerSpec{ID: "mid", Parent: "base"}, makeTar(t, entry{name: "d/m", text: "mm"}))
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "top", Parent: "mid", Names: []string{"n"}})
		dir, err := s.Mount(ctx, "top", drivers.MountOptions{})
		if err == nil {
			err = errors.Join(
				os.WriteFile(filepath.Join(dir, "d/a"), []byte("changed"), 0o600),
				os.Remove(filepath.Join(dir, "d/b")),
				os.RemoveAll(filepath.Join(dir, "e")),
				os.MkdirAll(filepath.Join(dir, "new/deep"), 0o755),
				os.Symlink("x", filepath.Join(dir, "new/link")))
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Unmount(ctx, "n", false); err != nil {
			t.Fatal(err)
		}
		for _, pair := range [][]string{{"top"}, {"mid"}, {"top", "base"}, {"mid", "base"}} {
			checkChanges(t, e, s, append([]string{}, pair...))
		}
		err = s.Changes(ctx, "", "none", func(layertar.Change) error { return nil })
		wantErr(t, err, errno.ErrUnknown, "none")
	})
}

func checkChanges(t *testing.T, e *lifeEnv, s *store.Store, pair []string) {
	t.Helper()
	ctx := context.Background()
	from := ""
	if len(pair) > 1 {
		from = pair[1]
	}
	var ours []string
	err := s.Changes(ctx, from, pair[0], func(c layertar.Change) error {
		ours = append(ours, fmt.Sprintf("%s %q", c.Kind, c.Path))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	theirs := strings.Split(strings.TrimSpace(e.peer(append([]string{"changes"}, pair...)...)), "\n")
	slices.Sort(ours)
	slices.Sort(theirs)
	if !slices.Equal(ours, theirs) {
		t.Errorf("changes of %v are\n%q, the peer says\n%q", pair, ours, theirs)
	}
	n, err := s.DiffSize(ctx, from, pair[0])
	if got := strings.TrimSpace(e.peer(append([]string{"diffsize"}, pair...)...)); err != nil || got != fmt.Sprint(n) {
		t.Errorf("diffsize of %v is %d (%v), the peer says %s", pair, n, err, got)
	}
	src, err := s.Diff(ctx, from, pair[0])
	if err != nil {
		t.Fatal(err)
	}
	if pair[0] == "mid" { // the peer gives back the stream that made it: TestImportAsPeersDo
		return
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(layertar.Generate(ctx, w, src)) }()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tarNames(t, string(text)), tarNames(t, e.peer(append([]string{"diff", "-u"}, pair...)...)); !slices.Equal(got, want) {
		t.Errorf("diff of %v holds %q, the peer's %q", pair, got, want)
	}
}
