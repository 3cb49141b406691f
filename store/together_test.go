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

// peerWorker is a worker whose every operation is a command of the peer's. It
// makes images on the way, and deletes them: podman wants more of an image.
type peerWorker struct {
	e      *lifeEnv
	name   string
	n      int
	rnd    *rand.Rand
	layers []string
	images []string
	ctrs   []string
	names  map[string]string
}

func (w *peerWorker) id(kind string) string {
	w.n++
	return w.name + "-" + kind + "-" + strconv.Itoa(w.n)
}

func (w *peerWorker) pick(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[w.rnd.IntN(len(list))]
}

func (w *peerWorker) round() {
	switch w.rnd.IntN(9) {
	case 0, 1:
		id, name := w.id("layer"), w.id("name")
		w.e.peer("create-layer", "--id", id, "-n", name, "base")
		w.layers, w.names[id] = append(w.layers, id), name
	case 2:
		if id := w.pick(w.layers); id != "" {
			w.e.peer("delete-layer", id)
			w.layers = without(w.layers, id)
			delete(w.names, id)
		}
	case 3:
		id := w.id("image")
		w.e.peer("create-image", "--id", id, "base")
		w.images = append(w.images, id)
	case 4:
		w.dropImage(w.pick(w.images))
	case 5:
		id := w.id("ctr")
		w.e.peer("create-container", "--id", id, "-m", "{}", "baseimage")
		w.ctrs = append(w.ctrs, id)
	case 6:
		if id := w.pick(w.ctrs); id != "" {
			w.e.peer("delete-container", id)
			w.ctrs = without(w.ctrs, id)
		}
	case 7:
		if id := w.pick(w.layers); id != "" {
			name := w.id("name")
			w.e.peer("set-names", "-n", name, id)
			w.names[id] = name
		}
	case 8:
		if id := w.pick(w.ctrs); id != "" {
			w.e.peer("mount", id)
			w.e.peer("unmount", id)
		}
	}
}

func (w *peerWorker) dropImage(id string) {
	if id != "" {
		w.e.peer("delete-image", id)
		w.images = without(w.images, id)
	}
}

// run makes all rounds and says what it kept, as TestTogetherChild does.
func (w *peerWorker) run(rounds int) string {
	for range rounds {
		w.round()
	}
	for len(w.images) > 0 {
		w.dropImage(w.images[0])
	}
	b, err := json.Marshal(map[string]any{"layers": w.layers, "containers": w.ctrs, "names": w.names})
	if err != nil {
		w.e.t.Error(err)
	}
	return string(b)
}

// TestTogether lets processes of ours and the peer's commands work on one
// store at once: no update is lost, nothing is left over. With PLYFS_LONG set
// there are eight of them, two of the peer's, of a thousand operations each.
func TestTogether(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		needs(t, "containers-storage")
		s := e.open()
		importLayer(t, s, store.LayerSpec{ID: "base"}, makeTar(t, entry{name: "base"}))
		get(t, s.CreateMinimalImage, context.Background(), store.ImageSpec{ID: "baseimage", Layer: "base"})
		ours, rounds, theirRounds := 4, 25, 8
		if long() {
			ours, rounds, theirRounds = 6, 1000, 1000
		}
		var wg sync.WaitGroup
		outs := make([]string, ours+2)
		for i := range outs {
			name := string(rune('a' + i))
			wg.Go(func() {
				if i < ours {
					outs[i] = togetherChild(t, e, name, rounds)
					return
				}
				w := &peerWorker{e: e, name: name, rnd: rand.New(rand.NewPCG(uint64(i), 7)), names: map[string]string{}}
				outs[i] = w.run(theirRounds)
			})
		}
		wg.Wait()
		checkTogether(t, e, s, outs, nil)
		if got := check(t, s, store.CheckOptions{Level: store.CheckData, UnreferencedAge: -1}); got != "" {
			t.Errorf("damage:\n%s", got)
		}
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
