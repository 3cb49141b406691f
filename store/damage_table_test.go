package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// damage is one way to spoil the store that prepare makes, what a full check
// says then, and what is gone when it is repaired.
type damage struct {
	only string // the one driver that has it, or ""
	do   func(e *lifeEnv, s *store.Store) error
	// want are the lines of the check; "…" at the end stands for anything.
	want []string
	// force tells that it takes force, gone which keys of the snapshot go.
	force bool
	gone  []string
	// changed are keys whose value is another after the repair.
	changed []string
	// opened tells that opening the store repairs it: no check shows it.
	opened bool
}

func (e *lifeEnv) home() string {
	if e.driver == "vfs" {
		return filepath.Join(e.root, "vfs", "dir")
	}
	return filepath.Join(e.root, e.driver)
}

// content is a layer's own directory.
func (e *lifeEnv) content(id string) string {
	if e.driver == "vfs" {
		return filepath.Join(e.home(), id)
	}
	return filepath.Join(e.home(), id, "diff")
}

func (e *lifeEnv) kind(k string) string { return filepath.Join(e.root, e.driver+"-"+k) }

// rewrite replaces a file by what fn makes of it.
func rewrite(path string, fn func([]byte) []byte) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, fn(b), 0o600)
}

// replaced replaces the only place of a text.
func replaced(path, old, now string) error {
	return rewrite(path, func(b []byte) []byte {
		if bytes.Count(b, []byte(old)) != 1 {
			return nil
		}
		return bytes.Replace(b, []byte(old), []byte(now), 1)
	})
}

// without drops the record of an ID.
func withoutRecord(path, id string) error {
	return rewrite(path, func(b []byte) []byte {
		s := string(b)
		at := strings.Index(s, `{"id":"`+id+`"`)
		end := at + strings.Index(s[at:], `Z"`)
		end += strings.Index(s[end:], `},{"id"`)
		if end < at || !strings.Contains(s[at:], `},{"id"`) { // the last one
			return []byte(strings.TrimSuffix(s[:at], ",") + "]")
		}
		return []byte(s[:at] + s[end+2:])
	})
}

func remove(paths ...string) error {
	var err error
	for _, p := range paths {
		if _, serr := os.Lstat(p); serr != nil {
			err = errors.Join(err, serr)
		}
		err = errors.Join(err, os.RemoveAll(p))
	}
	return err
}

// damages are all that a store is to live with. The keys of the snapshot that
// go with a layer or the like are those of goneWith.
func damages() map[string]damage {
	const missing = ": layer directory is missing or damaged"
	return map[string]damage{
		"truncated layers": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return rewrite(filepath.Join(e.kind("layers"), "layers.json"), func(b []byte) []byte { return b[:len(b)-9] })
			},
			want:  []string{"container ctr: layer ctrlayer: container layer is missing", "layers: record file is damaged"},
			force: true, gone: []string{"container ctr", "layer ctrlayer"},
		},
		"truncated images": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return rewrite(filepath.Join(e.kind("images"), "images.json"), func(b []byte) []byte { return b[:len(b)-9] })
			},
			want:  []string{"container ctr: image other: image missing", "images: record file is damaged"},
			force: true, gone: []string{"image other", "container ctr", "layer ctrlayer"},
		},
		"truncated containers": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return rewrite(filepath.Join(e.kind("containers"), "containers.json"), func(b []byte) []byte { return b[:len(b)-9] })
			},
			want: []string{"containers: record file is damaged"}, gone: []string{"container ctr"},
		},
		"truncated mounts": {
			do: func(e *lifeEnv, _ *store.Store) error {
				dir := filepath.Join(e.run, e.driver+"-layers")
				return errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "mountpoints.json"), []byte(`[{"id"`), 0o600))
			},
			want: []string{"layers: table of mounts is damaged"},
		},
		"layer without directory": {
			do:   func(e *lifeEnv, _ *store.Store) error { return remove(filepath.Join(e.home(), "full")) },
			want: []string{"layer full" + missing}, gone: []string{"layer full"},
		},
		"top layer without directory": {
			do:   func(e *lifeEnv, _ *store.Store) error { return remove(filepath.Join(e.home(), "top")) },
			want: []string{"layer top" + missing}, gone: []string{"image img", "layer top"},
		},
		"container's layer without directory": {
			do:    func(e *lifeEnv, _ *store.Store) error { return remove(filepath.Join(e.home(), "ctrlayer")) },
			want:  []string{"layer ctrlayer" + missing},
			force: true, gone: []string{"container ctr", "layer ctrlayer"},
		},
		"layer without content": {
			only: "overlay",
			do:   func(e *lifeEnv, _ *store.Store) error { return remove(filepath.Join(e.home(), "full", "diff")) },
			want: []string{"layer full" + missing}, gone: []string{"layer full"},
		},
		"directory without record": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return os.MkdirAll(filepath.Join(e.home(), "alien", "diff", "d"), 0o700)
			},
			want: []string{"layer alien: layer in lower level storage driver not accounted for"},
		},
		"data without record": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return errors.Join(
					os.MkdirAll(filepath.Join(e.kind("images"), "alien", "d"), 0o700),
					os.MkdirAll(filepath.Join(e.kind("containers"), "alien", "d"), 0o700),
					os.WriteFile(filepath.Join(e.kind("layers"), "alien.tar-split.gz"), nil, 0o600))
			},
			want: []string{"container alien: data without a record", "image alien: data without a record", "layer alien: data without a record"},
		},
		"missing l links": {
			only: "overlay",
			do: func(e *lifeEnv, _ *store.Store) error {
				return errors.Join(remove(filepath.Join(e.home(), "l")), os.Mkdir(filepath.Join(e.home(), "l"), 0o755))
			},
			want: []string{"layer base: layer links …", "layer ctrlayer: layer links …", "layer empty: layer links …", "layer full: layer links …", "layer own: layer links …", "layer top: layer links …"},
		},
		"missing link files": {
			only: "overlay",
			do: func(e *lifeEnv, _ *store.Store) error {
				return remove(filepath.Join(e.home(), "base", "link"), filepath.Join(e.home(), "top", "link"))
			},
			want: []string{"layer base: layer links …", "layer top: layer links …"},
		},
		"missing links and link files": {
			only: "overlay",
			do: func(e *lifeEnv, _ *store.Store) error {
				err := errors.Join(remove(filepath.Join(e.home(), "l")), os.Mkdir(filepath.Join(e.home(), "l"), 0o755))
				for _, id := range []string{"base", "ctrlayer", "empty", "full", "own", "top"} {
					err = errors.Join(err, remove(filepath.Join(e.home(), id, "link")))
				}
				return err
			},
			want: []string{"layer base: layer links …", "layer ctrlayer: layer links …", "layer empty: layer links …", "layer full: layer links …", "layer own: layer links …", "layer top: layer links …"},
		},
		"missing and wrong lower": {
			only: "overlay",
			do: func(e *lifeEnv, _ *store.Store) error {
				return errors.Join(remove(filepath.Join(e.home(), "full", "lower")),
					os.WriteFile(filepath.Join(e.home(), "top", "lower"), []byte("l/ABCDEFGHIJKLMNOPQRSTUVWXYZ"), 0o644))
			},
			want: []string{"layer full: layer links …", "layer top: layer links …"},
		},
		"half-made layer": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return replaced(filepath.Join(e.kind("layers"), "layers.json"), `"id":"full"`, `"flags":{"incomplete":true},"id":"full"`)
			},
			opened: true, gone: []string{"layer full"},
		},
		"missing image data": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return remove(filepath.Join(e.kind("images"), "img", "manifest"))
			},
			want: []string{`image img: data item "manifest": image data item is missing`}, gone: []string{"image img"},
		},
		"missing container data": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return remove(filepath.Join(e.kind("containers"), "ctr", "item"))
			},
			want: []string{`container ctr: data item "item": container data item is missing`}, gone: []string{"data container ctr item"},
		},
		"missing layer data": {
			do:   func(e *lifeEnv, _ *store.Store) error { return remove(filepath.Join(e.kind("layers"), "full", "note")) },
			want: []string{`layer full: data item "note": layer data item is missing`}, gone: []string{"data layer full note"}, changed: []string{"layer full"},
		},
		"container data of another size": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return os.WriteFile(filepath.Join(e.kind("containers"), "ctr", "item"), []byte("longer"), 0o600)
			},
			want: []string{`container ctr: data item "item": container data item has incorrect size`}, gone: []string{"data container ctr item"},
		},
		"wrong image digest": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return rewrite(filepath.Join(e.kind("images"), "img", "manifest"), bytes.ToUpper)
			},
			want: []string{`image img: data item "manifest": image data item has incorrect digest`}, gone: []string{"image img"},
		},
		"wrong layer digest": {
			do: func(e *lifeEnv, s *store.Store) error {
				d := digestOfLayer(e.t, s, "full")
				return rewrite(filepath.Join(e.kind("layers"), "layers.json"), func(b []byte) []byte {
					return bytes.ReplaceAll(b, []byte(d), []byte(d[:len(d)-4]+"0000"))
				})
			},
			want: []string{"layer full: layer content incorrect digest"}, gone: []string{"layer full"},
		},
		"changed content": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return os.WriteFile(filepath.Join(e.content("full"), "full"), []byte("FULL"), 0o644)
			},
			want: []string{"layer full: file integrity checksum failed"}, gone: []string{"layer full"},
		},
		"added content": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return os.WriteFile(filepath.Join(e.content("top"), "datafile3"), []byte("x"), 0o644)
			},
			want: []string{"layer top: +/datafile3, layer content modified"}, gone: []string{"image img", "layer top"},
		},
		"removed content": {
			do:   func(e *lifeEnv, _ *store.Store) error { return remove(filepath.Join(e.content("full"), "full")) },
			want: []string{"layer full: -/full, layer content modified", "layer full: file integrity checksum failed"}, gone: []string{"layer full"},
		},
		"missing tar-split": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return remove(filepath.Join(e.kind("layers"), "full.tar-split.gz"))
			},
			want: []string{"layer full: layer tar-split record is missing or damaged"}, gone: []string{"layer full"},
		},
		"truncated tar-split": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return rewrite(filepath.Join(e.kind("layers"), "full.tar-split.gz"), func(b []byte) []byte { return b[:len(b)/2] })
			},
			want: []string{"layer full: layer tar-split record is missing or damaged"}, gone: []string{"layer full"},
		},
		"image without layer": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return replaced(filepath.Join(e.kind("images"), "images.json"), `"layer":"top"`, `"layer":"nope"`)
			},
			want: []string{"image img: layer nope: image layer is missing"}, gone: []string{"image img"},
		},
		"container without image": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return replaced(filepath.Join(e.kind("containers"), "containers.json"), `"image":"other"`, `"image":"nope"`)
			},
			want:  []string{"container ctr: image nope: image missing"},
			force: true, gone: []string{"container ctr", "layer ctrlayer"},
		},
		"layer without parent": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return withoutRecord(filepath.Join(e.kind("layers"), "layers.json"), "own")
			},
			want: []string{
				"image other: layer own: image layer is missing", "layer ctrlayer: layer own: parent layer is missing",
				"layer own: layer in lower level storage driver not accounted for",
			},
			force: true, gone: []string{"layer own", "image other", "container ctr", "layer ctrlayer"},
		},
		"layers that are each other's parents": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return replaced(filepath.Join(e.kind("layers"), "layers.json"), `{"id":"empty",`, `{"id":"empty","parent":"full2","created":"2999-01-01T00:00:00Z"},{"id":"full2","parent":"empty",`)
			},
			want: []string{"layer empty: its parents lead in a circle", "layer full2: its parents lead in a circle", "layer full2: layer directory …"},
			gone: []string{"layer empty", "layer full2"},
		},
		"record of a wrong type": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return replaced(filepath.Join(e.kind("layers"), "layers.json"), `"names":["f"]`, `"names":7`)
			},
			want: []string{"layer full: record cannot be understood…"}, gone: []string{"layer full"},
		},
		"records that are none": {
			do: func(e *lifeEnv, _ *store.Store) error {
				return rewrite(filepath.Join(e.kind("images"), "images.json"), func(b []byte) []byte {
					return append([]byte(`[7,{"id":"../x"},{"id":"img"},`), b[1:]...)
				})
			},
			want: []string{"image ../x: record is not shown…", "image img: record is not shown…", "images: record is not shown…"},
		},
	}
}

func digestOfLayer(t testing.TB, s *store.Store, id string) string {
	t.Helper()
	var d string
	view(t, s, func(tx *store.Tx) error {
		d = tx.LayerByID(id).DiffDigest.String()
		return nil
	})
	return d
}

// goneWith tells whether a key of a snapshot belongs to an object.
func goneWith(key, object string) bool {
	kind, id, _ := strings.Cut(object, " ")
	switch kind {
	case "layer":
		return slices.Contains([]string{object, "tree " + id, "tar " + id}, key) || strings.HasPrefix(key, "data "+object+" ")
	case "data":
		return key == object
	}
	return key == object || strings.HasPrefix(key, "data "+object+" ")
}

// TestDamages spoils a store in each way. It opens all the same, for the peers'
// eyes too where they can; a check shows just the damage; what is whole works
// on; a repair, each finding alone, takes away no more than it must, and leaves
// a store that is clean, for the peers as well.
func TestDamages(t *testing.T) {
	t.Parallel()
	for name, d := range damages() {
		for driver := range constructors() {
			if d.only == "" || d.only == driver {
				t.Run(driver+"/"+name, func(t *testing.T) {
					t.Parallel()
					d.test(t, newLifeEnv(t, driver))
				})
			}
		}
	}
}

func (d damage) test(t *testing.T, e *lifeEnv) {
	prepare(t, e)
	before := e.snapshot(t)
	if err := d.do(e, e.open()); err != nil {
		t.Fatal(err)
	}
	s := e.open()
	waitRemovals(t, s)
	ctx := context.Background()
	r := get(t, s.Check, ctx, store.CheckOptions{Level: store.CheckFull})
	var got []string
	for f := range r.All() {
		got = append(got, f.Line())
	}
	sameLines(t, d.want, got)
	if !slices.ContainsFunc(d.want, func(l string) bool { return strings.HasSuffix(l, "file is damaged") }) {
		get(t, s.CreateMinimalImage, ctx, store.ImageSpec{})
	}
	d.repair(t, s, r)
	if lines := check(t, s, store.CheckOptions{Level: store.CheckFull, UnreferencedAge: -1}); lines != "" {
		t.Errorf("after the repair:\n%s", lines)
	}
	d.compare(t, before, e.snapshot(t))
	for _, verb := range []string{"layers", "images", "containers"} {
		e.peer(verb)
	}
}

func sameLines(t *testing.T, want, got []string) {
	t.Helper()
	slices.Sort(got)
	for i, w := range want {
		if start, ok := strings.CutSuffix(w, "…"); ok && i < len(got) && strings.HasPrefix(got[i], start) {
			want[i] = got[i]
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings: %s", diff)
	}
}

// repair repairs finding by finding; without force nothing may be lost of
// containers.
func (d damage) repair(t *testing.T, s *store.Store, r *store.CheckReport) {
	t.Helper()
	ctx := context.Background()
	if d.force {
		_, err := s.Repair(ctx, r, store.RepairOptions{})
		wantErr(t, err, errno.ErrInUse, "force")
		view(t, s, func(tx *store.Tx) error {
			if tx.ContainerByID("ctr") == nil {
				t.Error("a container was deleted without force")
			}
			return nil
		})
	}
	for range 2 { // the second time shows what the first brought to light
		r, err := s.Check(ctx, store.CheckOptions{Level: store.CheckFull, UnreferencedAge: -1})
		if err != nil {
			t.Fatal(err)
		}
		steps, err := s.Repair(ctx, r, store.RepairOptions{Force: d.force})
		if err != nil || !r.Clean() && len(steps) == 0 {
			t.Errorf("%v, %v", steps, err)
		}
	}
}

// compare checks that nothing is lost but what had to go.
func (d damage) compare(t *testing.T, before, after map[string]string) {
	t.Helper()
	want := maps.Clone(before)
	for key := range before {
		if slices.ContainsFunc(d.gone, func(o string) bool { return goneWith(key, o) }) {
			delete(want, key)
		}
	}
	for _, m := range []map[string]string{want, after} {
		delete(m, "files")
		delete(m, "check")
		for _, key := range d.changed {
			delete(m, key)
		}
		for key := range m { // the image that was made to see that it can be
			if strings.HasPrefix(key, "image ") && len(key) > 60 || strings.HasPrefix(key, "data image ") && len(key) > 60 {
				delete(m, key)
			}
		}
	}
	if diff := cmp.Diff(want, after); diff != "" {
		t.Error(diff)
	}
}

// A damaged file is kept beside the one that takes its place.
func TestRepairKeepsFile(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		prepare(t, e)
		path := filepath.Join(e.kind("layers"), "layers.json")
		if err := rewrite(path, func(b []byte) []byte { return b[:len(b)-2] }); err != nil {
			t.Fatal(err)
		}
		want := read(t, path)
		s := e.open()
		r := get(t, s.Check, context.Background(), store.CheckOptions{})
		if _, err := s.Repair(context.Background(), r, store.RepairOptions{}); err == nil {
			t.Error("a container without layer was repaired without force")
		}
		kept, err := filepath.Glob(path + ".damaged-*")
		if err != nil || len(kept) != 1 || read(t, kept[0]) != want {
			t.Errorf("kept %v, %v", kept, err)
		}
		if b := read(t, path); !strings.HasSuffix(b, "}]") {
			t.Errorf("not whole: %s", b)
		}
		get(t, s.CreateLayer, context.Background(), store.LayerSpec{ID: "after"})
	})
}

// While the records of images cannot all be read, no layer counts as unneeded
// and none is deleted.
func TestUnknownUsers(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		prepare(t, e)
		if err := os.WriteFile(filepath.Join(e.kind("images"), "images.json"), []byte(`[`), 0o600); err != nil {
			t.Fatal(err)
		}
		s := e.open()
		got := check(t, s, store.CheckOptions{UnreferencedAge: time.Nanosecond})
		if strings.Contains(got, "not referenced") {
			t.Error(got)
		}
		for _, id := range []string{"top", "empty"} {
			wantErr(t, s.DeleteLayer(context.Background(), id), errno.ErrDamaged, "image")
		}
	})
}

// Unneeded layers are deleted from the top down, and nothing else is.
func TestRepairUnreferenced(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		prepare(t, e)
		s := e.open()
		ctx := context.Background()
		parent := ""
		for i := range 5 {
			id := fmt.Sprint("chain", (i*3)%5)
			get(t, s.CreateLayer, ctx, store.LayerSpec{ID: id, Parent: parent})
			parent = id
		}
		r := get(t, s.Check, ctx, store.CheckOptions{UnreferencedAge: time.Nanosecond})
		steps, err := s.Repair(ctx, r, store.RepairOptions{})
		if err != nil || len(steps) != 7 {
			t.Errorf("%d steps, %v", len(steps), err)
		}
		view(t, s, func(tx *store.Tx) error {
			if got := strings.Join(tx.IDs(store.KindLayer), " "); got != "base ctrlayer own top" {
				t.Errorf("left: %s", got)
			}
			return nil
		})
	})
}

// A mount makes all links again, also those that only other layers tell.
func TestMountMendsLinks(t *testing.T) {
	t.Parallel()
	e := newLifeEnv(t, "overlay")
	prepare(t, e)
	d := damages()["missing links and link files"]
	s := e.open()
	if err := d.do(e, s); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"img", "ctr", "full"} {
		path, err := s.Mount(context.Background(), ref, drivers.MountOptions{ReadOnly: ref == "img"})
		if err != nil {
			t.Fatal(err)
		}
		if ref != "ctr" && read(t, filepath.Join(path, "base")) != "base" {
			t.Errorf("%s: the layer below is not seen", ref)
		}
		if _, err := s.Unmount(context.Background(), ref, false); err != nil {
			t.Fatal(err)
		}
	}
	// The mounts needed the links of the layers below only.
	const words = ": layer links are missing or damaged"
	if got := check(t, s, store.CheckOptions{}); got != "layer empty"+words+"\nlayer full"+words {
		t.Error(got)
	}
}
