package store_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

const togetherEnv = "PLYFS_STORE_TEST_TOGETHER"

// worker makes, changes and deletes objects whose IDs begin with its name, and
// knows which of them must be there.
type worker struct {
	t      *testing.T
	s      *store.Store
	name   string
	n      int
	rnd    *rand.Rand
	layers []string          // its own, not deleted
	images []string          // its own, not deleted
	ctrs   []string          // its own, not deleted
	names  map[string]string // layer → its name
}

// TestTogetherChild is one of the processes of TestTogether.
func TestTogetherChild(t *testing.T) {
	text := os.Getenv(togetherEnv)
	if text == "" {
		t.Skip("it is the child of TestTogether")
	}
	var job struct {
		Driver, Root, Run, Name string
		Rounds                  int
	}
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		t.Fatal(err)
	}
	e := &lifeEnv{t: t, driver: job.Driver, root: job.Root, run: job.Run}
	w := &worker{t: t, s: e.open(), name: job.Name, rnd: rand.New(rand.NewPCG(uint64(len(job.Name)), uint64(job.Name[0]))), names: map[string]string{}}
	for range job.Rounds {
		w.round()
	}
	if t.Failed() {
		return
	}
	b, err := json.Marshal(map[string]any{"layers": w.layers, "images": w.images, "containers": w.ctrs, "names": w.names})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("KEPT", string(b))
}

func (w *worker) id(kind string) string {
	w.n++
	return w.name + "-" + kind + "-" + strconv.Itoa(w.n)
}

// ok fails the test for errors that are none of those that others' work, or an
// order of steps of our own, explains.
func (w *worker) ok(what string, err error) bool {
	w.t.Helper()
	for _, k := range []error{errno.ErrInUse, errno.ErrHasChildren, errno.ErrReadOnly} {
		if errors.Is(err, k) {
			return false
		}
	}
	if err != nil {
		w.t.Errorf("%s: %v", what, err)
	}
	return err == nil
}

func (w *worker) pick(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[w.rnd.IntN(len(list))]
}

func without(list []string, id string) []string {
	return slices.DeleteFunc(list, func(x string) bool { return x == id })
}

func (w *worker) round() {
	ctx := context.Background()
	switch w.rnd.IntN(9) {
	case 0, 1:
		w.makeLayer(ctx)
	case 2:
		if id := w.pick(w.layers); id != "" && w.ok("delete layer", w.s.DeleteLayer(ctx, id)) {
			w.layers = without(w.layers, id)
			delete(w.names, id)
		}
	case 3:
		id := w.id("image")
		if _, err := w.s.CreateMinimalImage(ctx, store.ImageSpec{ID: id, Layer: "base"}); w.ok("create image", err) {
			w.images = append(w.images, id)
		}
	case 4:
		if id := w.pick(w.images); id != "" {
			if _, err := w.s.DeleteImage(ctx, id); w.ok("delete image", err) {
				w.images = without(w.images, id)
			}
		}
	case 5:
		id := w.id("ctr")
		if _, err := w.s.CreateContainer(ctx, store.ContainerSpec{ID: id, Image: w.pick(append(w.images, ""))}); w.ok("create container", err) {
			w.ctrs = append(w.ctrs, id)
		}
	case 6:
		if id := w.pick(w.ctrs); id != "" && w.ok("delete container", w.s.DeleteContainer(ctx, id)) {
			w.ctrs = without(w.ctrs, id)
		}
	case 7:
		w.mountOne(ctx)
	case 8:
		if id := w.pick(w.images); id != "" {
			w.ok("set data", w.s.SetBigData(ctx, store.KindImage, id, "key-"+w.name, strings.NewReader(w.name)))
		}
	}
}

func (w *worker) makeLayer(ctx context.Context) {
	id, name := w.id("layer"), w.id("name")
	st, err := w.s.StageLayer(ctx, store.LayerSpec{ID: id, Parent: w.pick([]string{"base", ""}), Names: []string{name}})
	if !w.ok("stage layer", err) {
		return
	}
	if _, err := st.Import(ctx, bytes.NewReader(makeTar(w.t, entry{name: id, text: id}))); !w.ok("import", err) {
		return
	}
	if _, err := st.Commit(ctx); w.ok("commit", err) {
		w.layers, w.names[id] = append(w.layers, id), name
	}
}

func (w *worker) mountOne(ctx context.Context) {
	id := w.pick(append(w.ctrs, w.layers...))
	if id == "" {
		return
	}
	path, err := w.s.Mount(ctx, id, drivers.MountOptions{})
	if !w.ok("mount", err) {
		return
	}
	w.ok("write", os.WriteFile(filepath.Join(path, "written"), []byte(id), 0o600))
	_, err = w.s.Unmount(ctx, id, false)
	w.ok("unmount", err)
}

// TestTogether lets four processes and a peer work on one store at once: no
// update is lost, nothing is left over.
func TestTogether(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		s := e.open()
		importLayer(t, s, store.LayerSpec{ID: "base"}, makeTar(t, entry{name: "base"}))
		get(t, s.CreateMinimalImage, context.Background(), store.ImageSpec{ID: "baseimage", Layer: "base"})
		rounds := 25
		if long() {
			rounds = 300
		}
		var wg sync.WaitGroup
		outs := make([]string, 4)
		for i := range outs {
			wg.Go(func() { outs[i] = togetherChild(t, e, string(rune('a'+i)), rounds) })
		}
		var theirs []string
		for i := range rounds / 5 {
			id := "peer-" + strconv.Itoa(i)
			e.peer("create-layer", "--id", id, "-n", "name-"+id, "base")
			if i%3 == 0 {
				e.peer("delete-layer", id)
			} else {
				theirs = append(theirs, id)
			}
		}
		wg.Wait()
		checkTogether(t, e, s, outs, theirs)
	})
}

func togetherChild(t *testing.T, e *lifeEnv, name string, rounds int) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{"Driver": e.driver, "Root": e.root, "Run": e.run, "Name": name, "Rounds": rounds})
	if err != nil {
		t.Error(err)
		return ""
	}
	c := exec.Command(os.Args[0], "-test.run=^TestTogetherChild$", "-test.count=1")
	c.Env = append(os.Environ(), togetherEnv+"="+string(b))
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("process %s: %v\n%s", name, err, out)
	}
	for line := range strings.Lines(string(out)) {
		if kept, ok := strings.CutPrefix(line, "KEPT "); ok {
			return kept
		}
	}
	return ""
}

func checkTogether(t *testing.T, e *lifeEnv, s *store.Store, outs, theirs []string) {
	t.Helper()
	want := map[string][]string{"layers": append(theirs, "base"), "images": {"baseimage"}, "containers": nil}
	err := s.View(context.Background(), func(tx *store.Tx) error {
		for _, out := range outs {
			var kept struct {
				Layers, Images, Containers []string
				Names                      map[string]string
			}
			if err := json.Unmarshal([]byte(out), &kept); err != nil {
				return fmt.Errorf("a process reported %q: %w", out, err)
			}
			want["layers"] = append(want["layers"], kept.Layers...)
			want["images"] = append(want["images"], kept.Images...)
			want["containers"] = append(want["containers"], kept.Containers...)
			for id, name := range kept.Names {
				if got, ok := tx.ByName(store.KindLayer, name); !ok || got != id {
					t.Errorf("name %s is that of %q, want %q", name, got, id)
				}
			}
		}
		for c := range tx.Containers() {
			want["layers"] = append(want["layers"], c.Layer)
		}
		for k, plural := range map[store.Kind]string{store.KindLayer: "layers", store.KindImage: "images", store.KindContainer: "containers"} {
			got := slices.Sorted(slices.Values(tx.IDs(k)))
			slices.Sort(want[plural])
			if !slices.Equal(got, want[plural]) {
				t.Errorf("%s are %v, want %v", plural, got, want[plural])
			}
		}
		for l := range tx.Layers() {
			if m, ok := tx.Mountpoint(l.ID); ok && m.Count != 0 {
				t.Errorf("layer %s is counted as mounted %d times", l.ID, m.Count)
			}
		}
		list, err := s.Driver().List()
		if slices.Sort(list); err == nil && !slices.Equal(list, want["layers"]) {
			t.Errorf("the driver holds %v, want %v", list, want["layers"])
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Join(e.root, "plyfs")); err != nil || len(left) != 0 {
		t.Errorf("left in the extract area: %v, %v", left, err)
	}
	for _, args := range [][]string{{"layers"}, {"images"}, {"containers"}} {
		e.peer(args...)
	}
	e.podman("images")
}
