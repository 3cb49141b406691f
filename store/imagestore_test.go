package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// apart is a store whose images are in another root, on another filesystem
// where there is one: then a rename between the two would fail. The graph root
// has an image of its own from before.
func apart(t *testing.T, driver string) (e, images *lifeEnv) {
	t.Helper()
	e = newLifeEnv(t, driver)
	s := e.open()
	importLayer(t, s, store.LayerSpec{ID: "oldlayer"}, makeTar(t, entry{name: "old", text: "old"}))
	get(t, s.CreateMinimalImage, context.Background(), store.ImageSpec{ID: "oldimage", Layer: "oldlayer", Names: []string{"old"}})
	want(t, s.Close(), nil)
	images = newLifeEnv(t, driver)
	if dir, err := os.MkdirTemp("/dev/shm", "plyfs-images"); err == nil {
		images.root = filepath.Join(dir, "root")
		t.Cleanup(func() { want(t, os.RemoveAll(dir), nil) })
		t.Cleanup(func() {
			at := *images
			at.root = filepath.Join(dir, "root")
			at.unmountAll()
		})
	}
	e.imageStore = images.root
	return e, images
}

// holds fails the test unless a record file has, or lacks, an ID.
func holds(t testing.TB, path, id string, there bool) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if strings.Contains(string(text), `"id":"`+id+`"`) != there {
		t.Errorf("%s holds %s: %v, want %v", path, id, !there, there)
	}
}

// Images and the layers that are made read-only are in the image store, which
// the peer reads as a store of its own; containers and other layers are in the
// graph root, which the peer reads with the image store as an additional one.
func TestImageStoreApart(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, env *lifeEnv) {
		ctx := context.Background()
		e, images := apart(t, env.driver)
		s := e.open()
		importLayer(t, s, store.LayerSpec{ID: "base", ReadOnly: true}, makeTar(t, entry{name: "f", text: "f"}))
		importLayer(t, s, store.LayerSpec{ID: "top", Parent: "base", ReadOnly: true}, makeTar(t, entry{name: "g", text: "g"}))
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "work", Parent: "base"})
		get(t, s.CreateMinimalImage, ctx, store.ImageSpec{ID: "img", Layer: "top", Names: []string{"localhost/app:1"}})
		c := get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ctr", Image: "img", Names: []string{"web"}})
		file := func(e *lifeEnv, kind string) string {
			return filepath.Join(e.root, e.driver+"-"+kind, kind+".json")
		}
		for _, id := range []string{"base", "top"} {
			holds(t, file(images, "layers"), id, true)
			holds(t, file(e, "layers"), id, false)
			if !exists(filepath.Join(images.root, e.driver+"-layers", id+".tar-split.gz")) {
				t.Errorf("the tar-split record of %s is elsewhere", id)
			}
		}
		for _, id := range []string{"work", c.Layer} {
			holds(t, file(images, "layers"), id, false)
			holds(t, file(e, "layers"), id, true)
		}
		holds(t, file(images, "images"), "img", true)
		holds(t, file(e, "images"), "img", false)
		holds(t, file(e, "containers"), "ctr", true)
		mounted(t, s, "web", func(dir string) {
			for _, name := range []string{"f", "g"} {
				if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != name {
					t.Errorf("%s: %q %v", name, b, err)
				}
			}
			want(t, os.WriteFile(filepath.Join(dir, "new"), []byte("n"), 0o600), nil)
		})
		mounted(t, s, "img", func(dir string) {
			if e.driver != "overlay" { // a plain directory, which nothing protects
				return
			}
			if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
				t.Errorf("an image can be written: %v", err)
			}
		})
		if got := tarOwners(t, s, c.Layer); len(got) != 1 || got[0] != "new 0:0" {
			t.Errorf("diff of the container: %v", got)
		}
		opt := e.driver + ".imagestore=" + images.root
		if out := e.peer("--storage-opt", opt, "container", "web"); field(out, "Image") != "img" {
			t.Errorf("the peer shows %s", out)
		}
		if out := images.peer("image", "img"); field(out, "Top Layer") != "top" {
			t.Errorf("the peer shows %s", out)
		}
		changeApart(t, e, s)
		want(t, s.DeleteContainer(ctx, "web"), nil)
		deleted, err := s.DeleteImage(ctx, "img")
		want(t, err, nil)
		if len(deleted) == 0 || deleted[0] != "top" {
			t.Errorf("deleted %v", deleted)
		}
		want(t, s.Wipe(ctx, nil), nil)
		waitRemovals(t, s)
		images.onlyEmpty(t)
		for _, pattern := range []string{"plyfs/*", "*-layers/*.gz", "vfs/dir/*", "overlay/l/*"} {
			if left, err := filepath.Glob(filepath.Join(e.root, pattern)); err != nil || len(left) > 0 {
				t.Errorf("left: %v %v", left, err)
			}
		}
	})
}

// changeApart changes what is in the image store, and in the graph root from
// before, through the store e.
func changeApart(t *testing.T, e *lifeEnv, s *store.Store) {
	t.Helper()
	ctx := context.Background()
	want(t, s.SetBigData(ctx, store.KindImage, "img", "k", strings.NewReader("v")), nil)
	want(t, s.SetBigData(ctx, store.KindLayer, "top", "k", strings.NewReader("v")), nil)
	if got := readData(t, s, store.KindLayer, "top", "k") + readData(t, s, store.KindImage, "img", "k"); got != "vv" {
		t.Errorf("data: %q", got)
	}
	want(t, s.RemoveBigData(ctx, store.KindImage, "img", "k"), nil)
	update(t, s, func(w *store.WriteTx) error {
		return errors.Join(w.AddNames(store.KindImage, "img", "two"), w.AddNames(store.KindLayer, "top", "t"), w.AddNames(store.KindLayer, "work", "t"))
	})
	get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "leaf", Parent: "top", ReadOnly: true})
	applyDiff(t, s, "leaf", makeTar(t, entry{name: "h", text: "h"}))
	applyDiff(t, s, "leaf", makeTar(t, entry{name: "i", text: "i"}))
	if l := get(t, s.Seal, ctx, "leaf"); l.DiffDigest == "" {
		t.Error("the leaf was not sealed")
	}
	want(t, s.DeleteLayer(ctx, "leaf"), nil)
	get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "mapped", Image: "img", Maps: someMaps(100000, 200000)})
	get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "onold", Image: "oldimage"})
	for ref, file := range map[string]string{"mapped": "g 644 100000:200000", "onold": "old 644 0:0"} {
		mounted(t, s, ref, func(dir string) {
			if got := strings.Join(owners(t, dir), " "); !strings.Contains(got, file) {
				t.Errorf("%s shows %s", ref, got)
			}
		})
		want(t, s.DeleteContainer(ctx, ref), nil)
	}
	_, err := s.DeleteImage(ctx, "old")
	want(t, err, errno.ErrReadOnly)
	report, err := s.Check(ctx, store.CheckOptions{})
	want(t, err, nil)
	if n := len(report.Layers) + len(report.Images) + len(report.Containers) + len(report.ROImages) + len(report.Files); n > 0 {
		t.Errorf("check finds %+v", report)
	}
	other := e.open()
	view(t, other, func(tx *store.Tx) error {
		img, err := tx.Image("two")
		if err != nil || img.ReadOnly || tx.LayerByID("top") == nil || strings.Join(tx.LayerByID("work").Names, " ") != "t" || len(tx.LayerByID("top").Names) > 0 {
			t.Errorf("another opener sees %+v %v", img, err)
		}
		return nil
	})
	if _, err := other.Mount(ctx, "work", drivers.MountOptions{}); err != nil {
		t.Error(err)
	}
	_, err = s.Unmount(ctx, "work", false)
	want(t, err, nil)
}
