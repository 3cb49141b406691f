package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/store"
)

// TestDiskFull fills a small filesystem by every operation in turn: what fails
// leaves nothing, what succeeded stays whole, and with a little room all of it
// can be deleted.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		small := filepath.Join(filepath.Dir(e.root), "small")
		if err := os.Mkdir(small, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=1m"); err != nil {
			t.Skipf("no tmpfs can be mounted here, and the test fills one: %v", err)
		}
		e.root, e.run = filepath.Join(small, "root"), filepath.Join(small, "run")
		defer e.unmountAll()
		s := e.open()
		ctx := context.Background()
		get(t, s.CreateMinimalImage, ctx, store.ImageSpec{ID: "img"})
		// A record file is written anew to lose a record, which takes room.
		ballast := filepath.Join(small, "ballast")
		if err := os.WriteFile(ballast, make([]byte, 128<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		full := 0
		for i := 0; full < 40 && i < 4000; i++ {
			err := fillOnce(t, s, i)
			if err != nil && !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("operation %d: %v", i, err)
			}
			if err != nil {
				full++
			}
		}
		if full == 0 {
			t.Fatal("the filesystem did not get full")
		}
		checkWhole(t, e, s)
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		deleteAll(t, s)
		checkWhole(t, e, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// fillOnce does one operation; its kind and size follow from i.
func fillOnce(t *testing.T, s *store.Store, i int) error {
	ctx := context.Background()
	rnd := rand.New(rand.NewPCG(uint64(i), 1))
	junk := make([]byte, rnd.IntN(20000))
	for j := range junk {
		junk[j] = byte(rnd.Uint32())
	}
	switch i % 4 {
	case 0:
		st, err := s.StageLayer(ctx, store.LayerSpec{ID: fmt.Sprint("layer", i)})
		if err != nil {
			return err
		}
		_, err = st.Import(ctx, bytes.NewReader(makeTar(t, entry{name: "data", text: string(junk)})))
		_, cerr := st.Commit(ctx)
		return errors.Join(err, cerr)
	case 1:
		_, err := s.CreateContainer(ctx, store.ContainerSpec{ID: fmt.Sprint("ctr", i), Image: "img", BigData: []store.BigDataItem{{Key: "k", Data: junk}}})
		return err
	case 2:
		return s.SetBigData(ctx, store.KindImage, "img", "item", bytes.NewReader(junk))
	}
	_, err := s.CreateMinimalImage(ctx, store.ImageSpec{ID: fmt.Sprint("img", i)})
	return err
}

// checkWhole holds what the records say against what is there.
func checkWhole(t *testing.T, e *lifeEnv, s *store.Store) {
	t.Helper()
	waitRemovals(t, s)
	err := s.View(context.Background(), func(tx *store.Tx) error {
		list, err := s.Driver().List()
		ids := slices.Sorted(slices.Values(tx.IDs(store.KindLayer)))
		if slices.Sort(list); err == nil && !slices.Equal(list, ids) {
			t.Errorf("the driver holds %v, the records are of %v", list, ids)
		}
		for l := range tx.Layers() {
			if l.DiffDigest != "" && tarSum(s, l) != "as imported" {
				t.Errorf("layer %s: %s", l.ID, tarSum(s, l))
			}
		}
		for k := range store.Kind(3) {
			if d := tx.Damaged(k); len(d) > 0 {
				t.Errorf("damaged: %v", d)
			}
		}
		e.describe(t, s, tx, map[string]string{})
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Join(e.root, "plyfs")); err != nil || len(left) != 0 {
		t.Errorf("left in the extract area: %v, %v", left, err)
	}
}

func deleteAll(t *testing.T, s *store.Store) {
	t.Helper()
	ctx := context.Background()
	var layers, images, ctrs []string
	err := s.View(ctx, func(tx *store.Tx) error {
		layers, images, ctrs = tx.IDs(store.KindLayer), tx.IDs(store.KindImage), tx.IDs(store.KindContainer)
		return nil
	})
	for _, id := range ctrs {
		err = errors.Join(err, s.DeleteContainer(ctx, id))
	}
	for _, id := range images {
		_, derr := s.DeleteImage(ctx, id)
		err = errors.Join(err, derr)
	}
	for _, id := range layers {
		if strings.HasPrefix(id, "layer") {
			err = errors.Join(err, s.DeleteLayer(ctx, id))
		}
	}
	if err != nil {
		t.Errorf("deleting: %v", err)
	}
}

// TestVolatileContainer: one that need not outlive the machine's run.
func TestVolatileContainer(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		c := get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ctr", Volatile: true})
		if on, ok := c.Flags["Volatile"].(bool); !ok || !on {
			t.Errorf("flags %v", c.Flags)
		}
		path, err := s.Mount(ctx, "ctr", drivers.MountOptions{})
		if err == nil {
			err = os.WriteFile(filepath.Join(path, "f"), nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Unmount(ctx, "ctr", false); err != nil {
			t.Error(err)
		}
		again, err := s.Mount(ctx, "ctr", drivers.MountOptions{})
		if err != nil || again != path {
			t.Errorf("a second mount at %s: %v", again, err)
		}
		if _, err := s.Unmount(ctx, "ctr", false); err != nil {
			t.Error(err)
		}
		if err := s.DeleteContainer(ctx, "ctr"); err != nil {
			t.Error(err)
		}
	})
}
