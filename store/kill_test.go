package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar/layertartest"
	"github.com/plyfs/plyfs/store"
)

const killEnv = "PLYFS_STORE_TEST_KILL"

// killJob is what a child of TestKill does.
type killJob struct {
	Driver, Root, Run, Op string
	// At is the number of the step at which the child kills itself, counted
	// from 1; 0 lets it run and print its steps.
	At int
}

// killOps are the operations that are killed at each of their steps. All work
// on the store that prepare made; IDs are fixed so that states compare.
func killOps(t testing.TB) map[string]func(s *store.Store) error {
	ctx := context.Background()
	plain := makeTar(t, entry{name: "dir/"}, entry{name: "dir/added", text: "added"}, entry{name: "base", text: "changed"})
	add, _ := layertartest.Chunked(t, plain, layertartest.Table(t, layertartest.Entries(t, plain)))
	stage := func(st *store.StagedLayer, err error) error {
		if err != nil {
			return err
		}
		if _, err := st.Import(ctx, bytes.NewReader(add)); err != nil {
			return err
		}
		_, err = st.Commit(ctx)
		return err
	}
	return map[string]func(s *store.Store) error{
		"create-layer": func(s *store.Store) error {
			_, err := s.CreateLayer(ctx, store.LayerSpec{ID: "new", Parent: "base", Names: []string{"n"}})
			return err
		},
		"import-layer": func(s *store.Store) error {
			return stage(s.StageLayer(ctx, store.LayerSpec{ID: "new", Parent: "base",
				BigData: []store.BigDataItem{{Key: "item", Data: []byte("x")}}}))
		},
		"delete-layer": func(s *store.Store) error { return s.DeleteLayer(ctx, "full") },
		"create-image": func(s *store.Store) error {
			_, err := s.CreateMinimalImage(ctx, store.ImageSpec{ID: "img2", Layer: "base", Names: []string{"two"}})
			return err
		},
		"delete-image": func(s *store.Store) error { _, err := s.DeleteImage(ctx, "img"); return err },
		"create-container": func(s *store.Store) error {
			_, err := s.CreateContainer(ctx, store.ContainerSpec{ID: "c2", LayerID: "c2layer", Image: "img",
				BigData: []store.BigDataItem{{Key: "some-key", Data: []byte("x")}}})
			return err
		},
		"map-image": func(s *store.Store) error {
			_, err := s.MapImage(ctx, "img", someMaps(100000, 200000))
			return err
		},
		"delete-container": func(s *store.Store) error { return s.DeleteContainer(ctx, "ctr") },
		"diff-empty":       func(s *store.Store) error { return stage(s.StageDiff(ctx, "empty")) },
		"diff-full":        func(s *store.Store) error { return stage(s.StageDiff(ctx, "full")) },
		"seal":             func(s *store.Store) error { _, err := s.Seal(ctx, "empty"); return err },
		"data-new": func(s *store.Store) error {
			return s.SetBigData(ctx, store.KindImage, "img", "new-key", strings.NewReader("new"))
		},
		"data-replace": func(s *store.Store) error {
			return s.SetBigData(ctx, store.KindImage, "img", "manifest", strings.NewReader(`{"schemaVersion":2}`))
		},
		"data-layer": func(s *store.Store) error {
			return s.SetBigData(ctx, store.KindLayer, "base", "k", strings.NewReader("new"))
		},
		"data-remove": func(s *store.Store) error {
			return s.RemoveBigData(ctx, store.KindContainer, "ctr", "item")
		},
		"names": func(s *store.Store) error {
			return s.Update(ctx, func(w *store.WriteTx) error { return w.SetNames(store.KindImage, "img", "two", "three") })
		},
		"delete-any":    func(s *store.Store) error { return s.Delete(ctx, "ctr") },
		"repair-file":   repairAll,
		"repair-stray":  repairAll,
		"repair-alien":  repairAll,
		"repair-layer":  repairAll,
		"repair-links":  repairAll,
		"repair-mounts": repairAll,
		"repair-image":  repairAll,
		"repair-data":   repairAll,
	}
}

// repairAll repairs what a full check finds.
func repairAll(s *store.Store) error {
	r, err := s.Check(context.Background(), store.CheckOptions{Level: store.CheckFull, UnreferencedAge: -1})
	if err != nil {
		return err
	}
	_, err = s.Repair(context.Background(), r, store.RepairOptions{Force: true})
	return err
}

// spoil damages the store that an operation is to repair, in one place, so
// that the repair is one transaction. false: the driver has no such damage.
func spoil(e *lifeEnv, op string) (bool, error) {
	switch op {
	case "repair-file":
		return true, damages()["truncated containers"].do(e, nil)
	case "repair-alien":
		return true, damages()["directory without record"].do(e, nil)
	case "repair-layer":
		return true, damages()["layer without directory"].do(e, nil)
	case "repair-mounts":
		return true, damages()["truncated mounts"].do(e, nil)
	case "repair-image":
		return true, damages()["image without layer"].do(e, nil)
	case "repair-data":
		return true, damages()["missing layer data"].do(e, nil)
	case "repair-stray":
		return true, rewrite(filepath.Join(e.kind("images"), "images.json"), func(b []byte) []byte { return append([]byte(`[7,`), b[1:]...) })
	case "repair-links":
		if e.driver != "overlay" {
			return false, nil
		}
		return true, remove(filepath.Join(e.home(), "base", "link"))
	}
	return true, nil
}

// prepare fills a store: base ← top ← image img; base ← full (with a diff);
// empty; container ctr with data and a directory; big data on a layer.
func prepare(t testing.TB, e *lifeEnv) {
	t.Helper()
	ctx := context.Background()
	s := e.open()
	importLayer(t, s, store.LayerSpec{ID: "base"}, makeTar(t, entry{name: "base", text: "base"}, entry{name: "etc/"}))
	importLayer(t, s, store.LayerSpec{ID: "top", Parent: "base"}, makeTar(t, entry{name: "etc/"}, entry{name: "etc/top", text: "top"}))
	importLayer(t, s, store.LayerSpec{ID: "full", Parent: "base", Names: []string{"f"}}, makeTar(t, entry{name: "full", text: "full"}, entry{name: ".wh.etc"}))
	get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "own"})
	get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "empty"})
	if err := s.SetBigData(ctx, store.KindLayer, "full", "note", strings.NewReader("note")); err != nil {
		t.Fatal(err)
	}
	get(t, s.CreateMinimalImage, ctx, store.ImageSpec{ID: "img", Layer: "top", Names: []string{"one"}})
	get(t, s.CreateMinimalImage, ctx, store.ImageSpec{ID: "other", Layer: "own"})
	get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ctr", LayerID: "ctrlayer", Image: "other",
		BigData: []store.BigDataItem{{Key: "item", Data: []byte("v")}}})
	dir := get(t, s.ContainerDir, ctx, "ctr")
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("f"), 0o600); err != nil {
		t.Fatal(err)
	}
	get(t, s.ContainerRunDir, ctx, "ctr")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestKillChild is the child of TestKill.
func TestKillChild(t *testing.T) {
	text := os.Getenv(killEnv)
	if text == "" {
		t.Skip("it is the child of TestKill")
	}
	var job killJob
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // removals in the background go through steps as well
	steps := 0
	e := &lifeEnv{t: t, driver: job.Driver, root: job.Root, run: job.Run, noShift: true}
	o := store.WithFailpoint(e.options(), func(step string) {
		mu.Lock()
		defer mu.Unlock()
		steps++
		if job.At == 0 {
			fmt.Println("STEP", step)
		}
		if steps == job.At {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				t.Error(err)
			}
			select {}
		}
	})
	s := get(t, store.Open, context.Background(), o)
	ops := killOps(t)
	ops["nothing"] = func(s *store.Store) error {
		waitRemovals(t, s)
		return nil
	}
	ops["wipe"] = func(s *store.Store) error { return s.Wipe(context.Background(), nil) }
	ops["mount"] = func(s *store.Store) error {
		_, err := s.Mount(context.Background(), "full", drivers.MountOptions{})
		return err
	}
	ops["umount"] = func(s *store.Store) error {
		if err := ops["mount"](s); err != nil {
			return err
		}
		_, err := s.Unmount(context.Background(), "full", false)
		return err
	}
	if err := ops[job.Op](s); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// runChild runs a job and returns the steps that it printed.
func runChild(t *testing.T, job killJob) (steps []string, killed bool) {
	t.Helper()
	b, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0], "-test.run=^TestKillChild$", "-test.count=1")
	c.Env = append(os.Environ(), killEnv+"="+string(b))
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL {
			return nil, true
		}
	}
	if err != nil {
		t.Fatalf("%+v: %v\n%s", job, err, out)
	}
	for line := range strings.Lines(string(out)) {
		if s, ok := strings.CutPrefix(line, "STEP "); ok {
			steps = append(steps, strings.TrimSpace(s))
		}
	}
	return steps, false
}

// long tells whether the long runs were asked for.
func long() bool { return os.Getenv("PLYFS_LONG") != "" }

// TestKill kills a process at each step of each operation (at every second one
// over each of the two drivers, unless PLYFS_LONG is set). The store that is
// opened next must be as before the operation or as after it, with nothing
// left beside it; every second time one of the peers comes first.
func TestKill(t *testing.T) {
	t.Parallel()
	for driver := range constructors() {
		for op := range killOps(t) {
			t.Run(driver+"/"+op, func(t *testing.T) {
				t.Parallel()
				killOne(t, driver, op)
			})
		}
	}
}

func killOne(t *testing.T, driver, op string) {
	e := newLifeEnv(t, driver)
	prepare(t, e)
	if has, err := spoil(e, op); err != nil || !has {
		if err != nil {
			t.Fatal(err)
		}
		t.Skip("the damage that it repairs is none of this driver's")
	}
	before := e.snapshot(t)
	template := filepath.Join(filepath.Dir(e.root), "template")
	copyStore(t, filepath.Dir(e.root), template)
	job := killJob{Driver: driver, Root: e.root, Run: e.run, Op: op}
	steps, _ := runChild(t, job)
	after := e.snapshot(t)
	if diff := cmp.Diff(before, after); diff == "" || len(steps) == 0 {
		t.Fatalf("%d steps changed nothing", len(steps))
	}
	seen := map[string]int{}
	for n, step := range steps {
		if !long() && (n+len(driver))%2 == 0 {
			continue
		}
		restoreStore(t, template, filepath.Dir(e.root))
		job.At = n + 1
		if _, killed := runChild(t, job); !killed {
			t.Fatalf("not killed at step %d, %s", n+1, step)
		}
		if n/2%2 == 1 && !strings.HasPrefix(op, "repair-") { // it loads, and cleans, all kinds when it opens the store
			if out, err := e.tryPeer("layers"); err != nil {
				t.Fatalf("killed at %s: peer: %v\n%s", step, err, out)
			}
			e.unmountAll()
		}
		got := e.snapshot(t)
		toBefore, toAfter := cmp.Diff(before, got), cmp.Diff(after, got)
		switch {
		case toBefore == "":
			seen["undone"]++
		case toAfter == "":
			seen["done"]++
		default:
			t.Errorf("killed at %s: neither undone (%s) nor done (%s)", step, toBefore, toAfter)
		}
	}
	if long() && len(steps) > 1 && (seen["undone"] == 0 || seen["done"] == 0) {
		t.Errorf("of %v only %v were seen", steps, seen)
	}
}

func copyStore(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	restoreStore(t, from, to)
}

// restoreStore makes to/root and to/run equal to those of from.
func restoreStore(t *testing.T, from, to string) {
	t.Helper()
	for _, dir := range []string{"root", "run"} {
		if err := os.RemoveAll(filepath.Join(to, dir)); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cp", "-a", filepath.Join(from, dir), filepath.Join(to, dir)).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
	}
}

// snapshot opens the store, waits until it is swept, and describes all that
// records and directories say, without what differs from run to run.
func (e *lifeEnv) snapshot(t *testing.T) map[string]string {
	t.Helper()
	s := e.open()
	waitRemovals(t, s)
	m := map[string]string{}
	if err := s.View(context.Background(), func(tx *store.Tx) error { e.describe(t, s, tx, m); return nil }); err != nil {
		t.Fatal(err)
	}
	e.leftovers(t, s, m)
	m["check"] = check(t, s, store.CheckOptions{UnreferencedAge: -1})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return m
}

func (e *lifeEnv) describe(t *testing.T, s *store.Store, tx *store.Tx, m map[string]string) {
	t.Helper()
	for l := range tx.Layers() {
		m["layer "+l.ID] = fmt.Sprint(l.Names, l.Parent, l.CompressedDigest, l.CompressedSize, l.DiffDigest, l.DiffSize, l.UIDs, l.Flags, l.BigDataNames)
		dirs, err := s.Dirs(l.ID)
		m["tree "+l.ID] = fmt.Sprint(err)
		for _, d := range dirs {
			m["tree "+l.ID] += " " + treeSum(t, d)
		}
		m["tar "+l.ID] = tarSum(s, l)
	}
	for i := range tx.Images() {
		m["image "+i.ID] = fmt.Sprint(i.Names, i.TopLayer, i.MappedLayers, len(i.BigDataNames))
		e.describeData(t, s, store.KindImage, i.ID, i.BigDataNames, m)
	}
	for c := range tx.Containers() {
		m["container "+c.ID] = fmt.Sprint(c.Names, c.Image, c.Layer, c.Flags)
		e.describeData(t, s, store.KindContainer, c.ID, c.BigDataNames, m)
	}
	for l := range tx.Layers() {
		e.describeData(t, s, store.KindLayer, l.ID, l.BigDataNames, m)
	}
}

// describeData reads the items; manifests hold times, so only their agreement
// with the record counts.
func (e *lifeEnv) describeData(t *testing.T, s *store.Store, k store.Kind, id string, keys []string, m map[string]string) {
	t.Helper()
	for _, key := range keys {
		f, err := s.BigData(context.Background(), k, id, key)
		if err != nil {
			m["data "+k.String()+" "+id+" "+key] = err.Error()
			continue
		}
		b, err := io.ReadAll(f)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Error(err)
		}
		name := key
		if strings.Contains(key, "sha256:") {
			name = "by-digest"
		} else if len(b) < 100 {
			m["data "+k.String()+" "+id+" "+key] = string(b)
		}
		m["data "+k.String()+" "+id+" "+name] += "."
		err = s.View(context.Background(), func(tx *store.Tx) error {
			var size int64
			switch k {
			case store.KindImage:
				size = tx.ImageByID(id).BigDataSizes[key]
			case store.KindContainer:
				size = tx.ContainerByID(id).BigDataSizes[key]
			default:
				return nil
			}
			if size != int64(len(b)) {
				t.Errorf("%s %s: item %q has %d bytes, its record says %d", k, id, key, len(b), size)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// leftovers notes every file of the store that no record accounts for by name,
// with what is left in the extract area.
func (e *lifeEnv) leftovers(t *testing.T, s *store.Store, m map[string]string) {
	t.Helper()
	var names []string
	for _, dir := range []string{filepath.Join(e.root, "plyfs"), s.KindDir(store.KindLayer), s.KindDir(store.KindImage), s.KindDir(store.KindContainer), filepath.Join(e.run, e.driver+"-containers")} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for _, f := range entries {
			names = append(names, filepath.Base(dir)+"/"+f.Name())
		}
	}
	list, err := s.Driver().List()
	if err != nil {
		t.Error(err)
	}
	for _, id := range list {
		whole, err := s.Driver().Has(id)
		names = append(names, "driver/"+id+" "+strconv.FormatBool(whole)+fmt.Sprint(err))
	}
	// Peers make these when they open a store.
	names = slices.DeleteFunc(names, func(n string) bool {
		return strings.Contains(n, ".damaged-") || strings.HasSuffix(n, ".lock") || strings.HasSuffix(n, "layers/mountpoints.json") || strings.HasSuffix(n, "volatile-layers.json")
	})
	slices.Sort(names)
	m["files"] = strings.Join(names, "\n")
}

// tarSum digests the layer's tar stream when it is a recorded one.
func tarSum(s *store.Store, l *store.Layer) string {
	src, err := s.DiffTar(context.Background(), l.ID)
	if err != nil {
		return err.Error()
	}
	h := sha256.New()
	_, known := src.Size()
	_, err = src.WriteTo(h)
	err = errors.Join(err, src.Close())
	if !known || err != nil {
		return fmt.Sprint("generated ", err)
	}
	if sum := fmt.Sprintf("sha256:%x", h.Sum(nil)); sum != l.DiffDigest.String() {
		return "not what was imported: " + sum
	}
	return "as imported"
}

// treeSum digests names, types and content below dir.
func treeSum(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %v\n", strings.TrimPrefix(path, dir), d.Type())
		if !d.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		h.Write(b)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

// TestKillMount kills a process between mount and count, and between unmount
// and count: the next mount takes over what stands, and a count without mount
// is told and forced to zero.
func TestKillMount(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	e := newLifeEnv(t, "overlay")
	prepare(t, e)
	job := killJob{Driver: e.driver, Root: e.root, Run: e.run, Op: "mount"}
	steps, _ := runChild(t, job)
	s := e.open()
	if n, err := s.Unmount(ctx, "full", false); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	for n, step := range steps {
		job.At = n + 1
		if _, killed := runChild(t, job); !killed {
			t.Fatalf("not killed at %s", step)
		}
		path, err := s.Mount(ctx, "full", drivers.MountOptions{})
		if err != nil {
			t.Fatalf("killed at %s: %v", step, err)
		}
		if b, err := os.ReadFile(filepath.Join(path, "full")); err != nil || string(b) != "full" {
			t.Errorf("killed at %s: the mount shows %q, %v", step, b, err)
		}
		if n, err := s.Unmount(ctx, "full", true); n != 0 || err != nil {
			t.Fatalf("killed at %s: %d, %v", step, n, err)
		}
	}
	job.Op, job.At = "umount", slices.Index(steps, "mount:2")+2
	if _, killed := runChild(t, job); !killed {
		t.Fatal("not killed between unmount and count")
	}
	_, err := s.Mount(ctx, "full", drivers.MountOptions{})
	wantErr(t, err, errno.ErrInUse, "force")
	_, err = s.Unmount(ctx, "full", false)
	wantErr(t, err, errno.ErrInUse, "force")
	wantErr(t, s.DeleteLayer(ctx, "full"), errno.ErrInUse, "mounted")
	if n, err := s.Unmount(ctx, "full", true); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	if err := s.DeleteLayer(ctx, "full"); err != nil {
		t.Fatal(err)
	}
}
