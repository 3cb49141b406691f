package store_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// exists tells whether something is at path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// In a transient store containers, with their lock and their layers' records,
// are in the run root, and a restart of the machine forgets them; images stay.
func TestTransientStore(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		e.transient = true
		s := e.open()
		importLayer(t, s, store.LayerSpec{ID: "base"}, makeTar(t, entry{name: "f", text: "x"}))
		get(t, s.CreateImage, ctx, store.ImageSpec{ID: "img", Layer: "base"})
		c := get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ctr", Image: "img", Names: []string{"web"}})
		if !c.Volatile {
			t.Error("a container of a transient store is not volatile")
		}
		for path, there := range map[string]bool{
			filepath.Join(e.run, e.driver+"-containers", "volatile-containers.json"):  true,
			filepath.Join(e.run, e.driver+"-containers", "containers.lock"):           true,
			filepath.Join(e.run, e.driver+"-layers", "volatile-layers.json"):          true,
			filepath.Join(e.root, e.driver+"-layers", "layers.json"):                  true,
			filepath.Join(e.root, e.driver+"-images", "images.json"):                  true,
			filepath.Join(e.root, e.driver+"-containers", "volatile-containers.json"): false,
			filepath.Join(e.root, e.driver+"-containers", "containers.lock"):          false,
			filepath.Join(e.root, e.driver+"-layers", "volatile-layers.json"):         false,
		} {
			if exists(path) != there {
				t.Errorf("%s: there: %v, want %v", path, !there, there)
			}
		}
		other := e.open()
		view(t, other, func(tx *store.Tx) error {
			if got, err := tx.Container("web"); err != nil || !got.Volatile || !tx.LayerByID(got.Layer).Volatile {
				t.Errorf("another opener sees %+v %v", got, err)
			}
			return nil
		})
		path, err := s.Mount(ctx, "web", drivers.MountOptions{})
		want(t, err, nil)
		want(t, os.WriteFile(filepath.Join(path, "g"), nil, 0o600), nil)
		_, err = s.Unmount(ctx, "web", false)
		want(t, err, nil)
		want(t, os.Rename(e.run, e.run+"-before"), nil) // a restart
		view(t, s, func(tx *store.Tx) error {
			if tx.Len(store.KindContainer) != 0 || tx.LayerByID(c.Layer) != nil || tx.ImageByID("img") == nil {
				t.Errorf("after a restart: %d containers", tx.Len(store.KindContainer))
			}
			return nil
		})
		get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "again", Image: "img"})
		want(t, s.DeleteContainer(ctx, "again"), nil)
		_, err = s.DeleteImage(ctx, "img")
		want(t, err, nil)
	})
}

// A store that is used as a transient one and as one that lasts, at once: the
// containers of neither are leftovers to the other, in check, repair and the
// list of damage, also when the other's file cannot be read.
func TestTransientBesideLasting(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		lasting := e.open()
		transient := e.openWith(func(o store.Options) store.Options {
			o.Transient = true
			return o
		})
		importLayer(t, lasting, store.LayerSpec{ID: "base"}, makeTar(t, entry{name: "f"}))
		get(t, lasting.CreateMinimalImage, ctx, store.ImageSpec{ID: "img", Layer: "base"})
		get(t, transient.CreateContainer, ctx, store.ContainerSpec{ID: "passing", Image: "img"})
		get(t, lasting.CreateContainer, ctx, store.ContainerSpec{ID: "volatile", Image: "img", Volatile: true})
		get(t, lasting.CreateContainer, ctx, store.ContainerSpec{ID: "kept", Image: "img"})
		file := filepath.Join(e.run, e.driver+"-layers", "volatile-layers.json")
		sound, err := os.ReadFile(file)
		want(t, err, nil)
		for _, text := range []string{string(sound), string(sound)[:len(sound)-2]} {
			want(t, os.WriteFile(file, []byte(text), 0o600), nil)
			for name, s := range map[string]*store.Store{"lasting": lasting, "transient": transient} {
				if text != string(sound) && name == "transient" {
					continue // its own file is damaged
				}
				o := store.CheckOptions{UnreferencedAge: -1}
				if got := check(t, s, o); got != "" {
					t.Errorf("%s: %s", name, got)
				}
				view(t, s, func(tx *store.Tx) error {
					for _, b := range append(tx.Damaged(store.KindLayer), tx.Damaged(store.KindContainer)...) {
						t.Errorf("%s: %v", name, b.Err)
					}
					return nil
				})
				report, err := s.Check(ctx, o)
				want(t, err, nil)
				_, err = s.Repair(ctx, report, store.RepairOptions{})
				want(t, err, nil)
			}
		}
		want(t, os.WriteFile(file, sound, 0o600), nil)
		for s, id := range map[*store.Store]string{lasting: "volatile", transient: "passing"} {
			if _, err := os.Stat(mountAt(t, s, id)); err != nil {
				t.Error(err)
			}
			unmountFrom(t, s, id)
		}
	})
}

// Volatile containers, without a transient store, are recorded in the files
// for them, in the graph root.
func TestVolatileContainers(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "kept"})
		c := get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ctr", Volatile: true})
		for kind, id := range map[string]string{"containers": "ctr", "layers": c.Layer} {
			dir := filepath.Join(e.root, e.driver+"-"+kind)
			volatile, err := os.ReadFile(filepath.Join(dir, "volatile-"+kind+".json"))
			want(t, err, nil)
			main, err := os.ReadFile(filepath.Join(dir, kind+".json"))
			want(t, err, nil)
			if !strings.Contains(string(volatile), `"id":"`+id+`"`) || strings.Contains(string(main), `"id":"`+id+`"`) {
				t.Errorf("%s: volatile %s, main %s", kind, volatile, main)
			}
		}
		update(t, s, func(w *store.WriteTx) error { return w.AddNames(store.KindContainer, "ctr", "v") })
		want(t, s.DeleteContainer(ctx, "v"), nil)
		e.onlyContainer(t, "kept")
	})
}

func (e *lifeEnv) onlyContainer(t *testing.T, id string) {
	t.Helper()
	s := e.open()
	view(t, s, func(tx *store.Tx) error {
		if tx.Len(store.KindContainer) != 1 || tx.ContainerByID(id) == nil || tx.Len(store.KindLayer) != 1 {
			t.Errorf("%d containers, %d layers", tx.Len(store.KindContainer), tx.Len(store.KindLayer))
		}
		return nil
	})
}

// What a deleted record of our own hid in an additional store is seen by who
// looks after that, whoever else looks at the same time.
func TestAdditionalStoreShowsAgain(t *testing.T) {
	t.Parallel()
	ro, e := newLifeEnv(t, "vfs"), newLifeEnv(t, "vfs")
	s := ro.open()
	importLayer(t, s, store.LayerSpec{ID: "robase"}, makeTar(t, entry{name: "f", text: "f"}))
	get(t, s.CreateMinimalImage, t.Context(), store.ImageSpec{ID: "roimage", Layer: "robase", Names: []string{"n"}})
	e.imageStores = []string{ro.root}
	s = e.open()
	ctx, end := context.WithCancel(t.Context())
	var lookers sync.WaitGroup
	defer lookers.Wait()
	defer end()
	for range 3 {
		lookers.Go(func() {
			for ctx.Err() == nil {
				_, _ = s.Refresh(ctx)
			}
		})
	}
	for i := range 60 {
		update(t, s, func(w *store.WriteTx) error { return w.AddNames(store.KindImage, "roimage", "mine") })
		get(t, s.DeleteImage, ctx, "roimage")
		view(t, s, func(tx *store.Tx) error {
			if img := tx.ImageByID("roimage"); img == nil || !img.ReadOnly {
				t.Fatalf("round %d: after our record is deleted: %+v", i, img)
			}
			return nil
		})
	}
}

// An additional store stays as it is, to the last file, though its links are
// missing; the peer and we take turns on an image of it: naming it copies its
// record, and deleting the copy deletes that alone.
func TestAdditionalStoreUntouched(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, ro *lifeEnv) {
		ctx := context.Background()
		s := ro.open()
		importLayer(t, s, store.LayerSpec{ID: "robase"}, makeTar(t, entry{name: "f", text: "f"}))
		importLayer(t, s, store.LayerSpec{ID: "rotop", Parent: "robase"}, makeTar(t, entry{name: "g", text: "g"}))
		get(t, s.CreateMinimalImage, ctx, store.ImageSpec{ID: "roimage", Layer: "rotop", Names: []string{"n"}})
		want(t, s.Close(), nil)
		for _, gone := range []string{"overlay/l", "overlay/robase/empty", "overlay/robase/merged", "overlay/rotop/merged"} {
			want(t, os.RemoveAll(filepath.Join(ro.root, gone)), nil)
		}
		before := tree(t, ro.root)
		e := newLifeEnv(t, ro.driver)
		e.imageStores = []string{ro.root}
		s = e.open()
		for _, ref := range []string{"robase", "n"} {
			_, err := s.Mount(ctx, ref, drivers.MountOptions{ReadOnly: true})
			want(t, err, nil)
			_, err = s.Unmount(ctx, ref, false)
			want(t, err, nil)
		}
		get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "mapped", Image: "roimage", Maps: someMaps(100000, 200000)})
		mounted(t, s, "mapped", func(dir string) {
			if got := strings.Join(owners(t, dir), " "); !strings.Contains(got, "f 644 100000:200000 g 644 100000:200000") {
				t.Errorf("mapped: %s", got)
			}
		})
		want(t, s.DeleteContainer(ctx, "mapped"), nil)
		update(t, s, func(w *store.WriteTx) error { return w.AddNames(store.KindImage, "roimage", "mine") })
		opt := e.driver + ".imagestore=" + ro.root
		if out := e.peer("--storage-opt", opt, "images"); !strings.Contains(out, "name: mine") {
			t.Errorf("the peer does not see the copy: %s", out)
		}
		e.peer("--storage-opt", opt, "add-names", "-n", "theirs", "roimage")
		view(t, s, func(tx *store.Tx) error {
			if img, err := tx.Image("theirs"); err != nil || img.ID != "roimage" || img.ReadOnly {
				t.Errorf("%+v %v", img, err)
			}
			return nil
		})
		deleted, err := s.DeleteImage(ctx, "mine")
		want(t, err, nil)
		if len(deleted) > 0 {
			t.Errorf("layers of a read-only store were deleted: %v", deleted)
		}
		view(t, s, func(tx *store.Tx) error {
			if img, err := tx.Image("n"); err != nil || !img.ReadOnly {
				t.Errorf("the original does not show again: %+v %v", img, err)
			}
			return nil
		})
		_, err = s.DeleteImage(ctx, "n")
		want(t, err, errno.ErrReadOnly)
		if after := tree(t, ro.root); after != before {
			t.Errorf("the additional store was touched:\n%s\nwas\n%s", after, before)
		}
	})
}
