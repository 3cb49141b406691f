//go:build linux

package drivertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/mounts"
)

// Run runs every case over the driver.
func Run(t *testing.T, m Maker) {
	needRoot(t)
	for _, c := range []struct {
		name string
		fn   func(*testing.T, Maker)
	}{
		{"BaseLayer", baseLayer}, {"ChildOverParent", childOverParent}, {"Marks", marks},
		{"UnknownParent", unknownParent}, {"DuplicatePublish", duplicatePublish},
		{"BadIDs", badIDs}, {"UnknownOption", unknownOption}, {"RetireAbsent", retireAbsent},
		{"RetireWhole", retireWhole}, {"KilledAfterCreate", killedAfterCreate},
		{"ExchangeAddsAtomically", exchangeAtomic}, {"ReadOnlyMount", readOnlyMount},
		{"ParallelCreates", parallelCreates}, {"RootOwner", rootOwner}, {"DiffSource", diffSource},
		{"BusyUnmount", busyUnmount}, {"Cancelled", cancelled},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.fn(t, m)
		})
	}
	regressions(t, m)
}

func baseLayer(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	if has, err := s.Driver.Has("base"); has || err != nil {
		t.Fatalf("Has before: %v, %v", has, err)
	}
	s.Layer("base", "", func(p drivers.Private) { write(t, filepath.Join(p.Dir, "f"), "1") })
	has, err := s.Driver.Has("base")
	if !has || err != nil {
		t.Fatalf("Has: %v, %v", has, err)
	}
	ids, err := s.Driver.List()
	must(t, err)
	if !slices.Equal(ids, []string{"base"}) {
		t.Fatalf("List: %q", ids)
	}
	dirs, err := s.Driver.Dirs("base")
	must(t, err)
	if len(dirs) != 1 || read(t, filepath.Join(dirs[0], "f")) != "1" {
		t.Fatalf("Dirs: %q", dirs)
	}
	dir, _ := s.Mount("base", drivers.MountOptions{})
	if got := read(t, filepath.Join(dir, "f")); got != "1" {
		t.Fatalf("mounted: %q", got)
	}
}

func childOverParent(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	s.Layer("a", "", func(p drivers.Private) { write(t, filepath.Join(p.Dir, "f"), "old") })
	s.Layer("b", "a", nil)
	s.Layer("c", "b", nil)
	dir, unmount := s.Mount("c", drivers.MountOptions{})
	write(t, filepath.Join(dir, "f"), "new")
	write(t, filepath.Join(dir, "g"), "more")
	unmount()
	dir, unmount = s.Mount("c", drivers.MountOptions{})
	if read(t, filepath.Join(dir, "f")) != "new" || read(t, filepath.Join(dir, "g")) != "more" {
		t.Fatal("what was written is not there at the next mount")
	}
	unmount()
	dir, unmount = s.Mount("b", drivers.MountOptions{})
	defer unmount()
	if got := names(t, dir); got != "f" || read(t, filepath.Join(dir, "f")) != "old" {
		t.Fatalf("the parent changed: %s", got)
	}
}

func marks(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	s.Layer("a", "", func(p drivers.Private) {
		write(t, filepath.Join(p.Dir, "gone"), "1")
		write(t, filepath.Join(p.Dir, "kept"), "1")
		must(t, os.Mkdir(filepath.Join(p.Dir, "d"), 0o755))
		write(t, filepath.Join(p.Dir, "d", "under"), "1")
	})
	s.Layer("b", "a", func(p drivers.Private) {
		Hide(t, p, "gone")
		Opaque(t, p, "d")
		write(t, filepath.Join(p.Dir, "d", "over"), "1")
	})
	s.Layer("c", "b", nil)
	for _, o := range []drivers.MountOptions{{}, {ReadOnly: true}} {
		dir, unmount := s.Mount("c", o)
		if got := names(t, dir); got != "d kept" {
			t.Errorf("root: %q", got)
		}
		if got := names(t, filepath.Join(dir, "d")); got != "over" {
			t.Errorf("opaque directory: %q", got)
		}
		unmount()
	}
}

func unknownParent(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	_, err := s.Driver.Create(context.Background(), s.Stage(), drivers.LayerSpec{ID: "x", Parent: "nope"})
	if !errors.Is(err, errno.ErrUnknown) || !strings.Contains(err.Error(), "nope") {
		t.Fatalf("want ErrUnknown that names the parent, have %v", err)
	}
	if _, err := s.Driver.Mount("nope", drivers.MountOptions{}); !errors.Is(err, errno.ErrUnknown) {
		t.Fatalf("Mount: %v", err)
	}
	if _, err := s.Driver.Dirs("nope"); !errors.Is(err, errno.ErrUnknown) {
		t.Fatalf("Dirs: %v", err)
	}
}

func duplicatePublish(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	s.Layer("x", "", func(p drivers.Private) { write(t, filepath.Join(p.Dir, "f"), "first") })
	stage := s.Create(drivers.LayerSpec{ID: "x"}, nil)
	if err := s.Driver.Publish(stage, "x"); !errors.Is(err, errno.ErrDuplicate) {
		t.Fatalf("want ErrDuplicate, have %v", err)
	}
	dirs, err := s.Driver.Dirs("x")
	must(t, err)
	if read(t, filepath.Join(dirs[0], "f")) != "first" {
		t.Fatal("the published layer changed")
	}
}

func badIDs(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	for _, id := range []string{"", ".", "..", "../x", "a/b", "a\x00b", strings.Repeat("x", 256)} {
		if _, err := s.Driver.Create(context.Background(), s.Stage(), drivers.LayerSpec{ID: id}); err == nil {
			t.Errorf("Create took the ID %q", id)
		}
		if err := s.Driver.Retire(s.Stage(), id); err == nil {
			t.Errorf("Retire took the ID %q", id)
		}
		if _, err := s.Driver.Dirs(id); err == nil {
			t.Errorf("Dirs took the ID %q", id)
		}
	}
}

func unknownOption(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	cfg := s.Config
	cfg.Options = append(slices.Clone(cfg.Options), drivers.Option{Key: "blah", Value: "1"})
	_, err := m.New(cfg)
	if !errors.Is(err, errno.ErrBadValue) || !strings.Contains(err.Error(), "blah") {
		t.Fatalf("want ErrBadValue that names the option, have %v", err)
	}
}

func retireAbsent(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	must(t, s.Driver.Retire(s.Stage(), "never"))
}

func retireWhole(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	s.Layer("a", "", nil)
	s.Layer("b", "a", func(p drivers.Private) { write(t, filepath.Join(p.Dir, "f"), "1") })
	stage := s.Stage()
	must(t, s.Driver.Retire(stage, "b"))
	if has, err := s.Driver.Has("b"); has || err != nil {
		t.Fatalf("Has: %v, %v", has, err)
	}
	if got := names(t, filepath.Join(s.Config.Root, stage)); got != "b" {
		t.Fatalf("the stage holds %q", got)
	}
	must(t, s.Driver.Retire(s.Stage(), "b"))
	ids, err := s.Driver.List()
	must(t, err)
	if !slices.Equal(ids, []string{"a"}) {
		t.Fatalf("List: %q", ids)
	}
	s.Layer("b", "a", nil) // the ID is free again
}

func killedAfterCreate(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	s.Layer("a", "", nil)
	s.Create(drivers.LayerSpec{ID: "b", Parent: "a"}, nil)
	if has, err := s.Driver.Has("b"); has || err != nil {
		t.Fatalf("a layer in a stage shows: %v, %v", has, err)
	}
	again, err := m.New(s.Config)
	must(t, err)
	ids, err := again.List()
	must(t, err)
	if !slices.Equal(ids, []string{"a"}) {
		t.Fatalf("List: %q", ids)
	}
}

func exchangeAtomic(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	s.Layer("a", "", nil)
	s.Layer("b", "a", func(p drivers.Private) { write(t, filepath.Join(p.Dir, "f"), "kept") })
	before, err := s.Driver.Dirs("b")
	must(t, err)
	stop, seen := make(chan struct{}), make(chan error, 1)
	go func() { seen <- watch(before[0], stop) }()
	for i := range 20 {
		stage := s.Create(drivers.LayerSpec{ID: "b", Parent: "a", From: "b"}, func(p drivers.Private) {
			write(t, filepath.Join(p.Dir, fmt.Sprintf("add%02d", i)), "1")
		})
		must(t, s.Driver.Exchange(stage, "b"))
		if got := names(t, filepath.Join(s.Config.Root, stage)); got != "b" {
			t.Fatalf("the old one is not in the stage: %q", got)
		}
	}
	close(stop)
	must(t, <-seen)
	dir, _ := s.Mount("b", drivers.MountOptions{})
	if got := len(strings.Fields(names(t, dir))); got != 21 {
		t.Fatalf("%d files after 20 additions to one", got)
	}
}

// watch fails when the layer's own file is missing at any time.
func watch(dir string, stop chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if _, err := os.Stat(filepath.Join(dir, "f")); err != nil {
			return fmt.Errorf("while being exchanged: %w", err)
		}
	}
}

func readOnlyMount(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	s.Layer("a", "", func(p drivers.Private) { write(t, filepath.Join(p.Dir, "f"), "1") })
	s.Layer("b", "a", nil)
	for _, id := range []string{"a", "b"} {
		plan, err := s.Driver.Mount(id, drivers.MountOptions{ReadOnly: true})
		must(t, err)
		if plan.Upper != "" || plan.Work != "" {
			t.Fatalf("read-only plan has an upper: %+v", plan)
		}
		dir, unmount := s.Mount(id, drivers.MountOptions{ReadOnly: true})
		if read(t, filepath.Join(dir, "f")) != "1" {
			t.Fatal("content")
		}
		if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o600); m.Union && err == nil {
			t.Fatal("a read-only mount was written to")
		}
		unmount()
	}
}

func parallelCreates(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	s.Layer("base", "", func(p drivers.Private) { write(t, filepath.Join(p.Dir, "f"), "1") })
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		stage := s.Stage()
		wg.Go(func() {
			id := fmt.Sprintf("l%02d", i)
			_, err := s.Driver.Create(context.Background(), stage, drivers.LayerSpec{ID: id, Parent: "base"})
			if err == nil {
				err = s.Driver.Publish(stage, id)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	ids, err := s.Driver.List()
	must(t, err)
	if len(ids) != 17 || !slices.IsSorted(ids) {
		t.Fatalf("List: %q", ids)
	}
	for _, id := range ids {
		if has, err := s.Driver.Has(id); !has || err != nil {
			t.Errorf("Has(%s): %v, %v", id, has, err)
		}
	}
}

func rootOwner(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	stage := s.Create(drivers.LayerSpec{ID: "x", RootUID: 1234, RootGID: 4321}, func(p drivers.Private) {
		if got := owner(t, p.Dir); got != "1234:4321" {
			t.Fatalf("owner of the layer's root: %s", got)
		}
	})
	must(t, s.Driver.Publish(stage, "x"))
}

func diffSource(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	s.Layer("a", "", nil)
	s.Layer("b", "a", nil)
	s.Layer("c", "b", nil)
	for _, pair := range [][2]string{{"a", ""}, {"b", "a"}, {"c", "b"}, {"c", "a"}, {"c", ""}, {"a", "c"}} {
		src, err := drivers.DiffSource(s.Driver, pair[0], pair[1])
		must(t, err)
		own, err := s.Driver.Dirs(pair[0])
		must(t, err)
		switch {
		case src.Upper != "":
			real := pair == [2]string{"a", ""} || pair == [2]string{"b", "a"} || pair == [2]string{"c", "b"}
			if !real || src.Upper != own[0] || !slices.Equal(src.Lowers, own[1:]) {
				t.Errorf("%q: native %+v", pair, src)
			}
		case !slices.Equal(src.New, own) || (len(src.Old) == 0) != (pair[1] == ""):
			t.Errorf("%q: compared %+v", pair, src)
		}
	}
	if _, err := drivers.DiffSource(s.Driver, "a", "nope"); !errors.Is(err, errno.ErrUnknown) {
		t.Errorf("unknown parent: %v", err)
	}
}

func busyUnmount(t *testing.T, m Maker) {
	if !m.Union {
		t.Skip("nothing is mounted by this driver")
	}
	s := Open(t, m, "root")
	s.Layer("a", "", func(p drivers.Private) { write(t, filepath.Join(p.Dir, "f"), "1") })
	s.Layer("b", "a", nil)
	dir, unmount := s.Mount("b", drivers.MountOptions{})
	f, err := os.Open(filepath.Join(dir, "f"))
	must(t, err)
	if err := mounts.Unmount(context.Background(), dir, false); !errors.Is(err, errno.ErrInUse) {
		t.Errorf("want ErrInUse, have %v", err)
	}
	if err := s.Driver.Retire(s.Stage(), "b"); !errors.Is(err, errno.ErrInUse) {
		t.Errorf("retiring a mounted layer: want ErrInUse, have %v", err)
	}
	unmount()
	must(t, f.Close())
	must(t, mounts.Unmount(context.Background(), dir, false)) // nothing there any more
	must(t, s.Driver.Retire(s.Stage(), "b"))
}

func cancelled(t *testing.T, m Maker) {
	s := Open(t, m, "root")
	s.Layer("a", "", func(p drivers.Private) { write(t, filepath.Join(p.Dir, "f"), "1") })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := s.Driver.Create(ctx, s.Stage(), drivers.LayerSpec{ID: "a", From: "a"})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("a copy went on after its context: %v", err)
	}
}
