package store_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/projquota"
	"github.com/plyfs/plyfs/store"
)

// quotaFilesystems are those with project quotas: how each is made and mounted.
func quotaFilesystems() map[string][2]string {
	return map[string][2]string{
		"ext4": {"mkfs.ext4 -q -O quota,project -E quotatype=prjquota", "prjquota"},
		"xfs":  {"mkfs.xfs -q", "pquota"},
	}
}

// onQuotas has the store on a filesystem of its own with project quotas.
func onQuotas(t *testing.T, name string) *lifeEnv {
	t.Helper()
	e := newLifeEnv(t, "overlay")
	how := quotaFilesystems()[name]
	_, at := fusetest.Loop(t, filepath.Dir(e.root), 512, how[0], how[1])
	e.root = filepath.Join(at, "root")
	return e
}

// fill writes to a new file until there is no more room, and returns how much.
func fillUp(t *testing.T, path string) (n int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 64<<10)
	for n < 64<<20 {
		m, err := f.Write(block)
		n += int64(m)
		if err != nil {
			if !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) {
				t.Error(err)
			}
			break
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

// A container is held to its limits by the filesystem, through the option of
// the driver as by its own; others are not; limits come and go; what is deleted
// leaves no quota behind.
func TestLimits(t *testing.T) {
	t.Parallel()
	for name := range quotaFilesystems() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := onQuotas(t, name)
			s := e.openWith(func(o store.Options) store.Options {
				o.DriverOptions = append(o.DriverOptions, drivers.Option{Key: "size", Value: "4m"}, drivers.Option{Key: "inodes", Value: "50"})
				return o
			})
			holdsLimits(t, e, s, 4<<20, 50)
		})
	}
}

// quotaOf returns the project of a layer, and its bounds.
func quotaOf(t *testing.T, dir string) (project uint32, b projquota.Bounds) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if project, _, err = projquota.Of(f); err == nil {
		b, _, err = projquota.Look(f, project)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return project, b
}

func holdsLimits(t *testing.T, e *lifeEnv, s *store.Store, bytes, inodes int64) {
	t.Helper()
	ctx := context.Background()
	importLayer(t, s, store.LayerSpec{ID: "base"}, makeTar(t, entry{name: "big", text: strings.Repeat("x", 8<<20)}))
	get(t, s.CreateMinimalImage, ctx, store.ImageSpec{ID: "image", Layer: "base"})
	for _, c := range []store.ContainerSpec{{ID: "default"}, {ID: "larger", Limits: drivers.Limits{Bytes: 2 * bytes}}} {
		c.Image = "image"
		get(t, s.CreateContainer, ctx, c)
		want := drivers.Limits{Bytes: max(bytes, c.Limits.Bytes), Inodes: inodes}
		got, used, err := s.Limits(ctx, c.ID)
		if err != nil || got != want {
			t.Errorf("limits of %s: %v, %v, want %v", c.ID, got, err, want)
		}
		dir := mountAt(t, s, c.ID)
		n := fillUp(t, filepath.Join(dir, "file"))
		if n > want.Bytes || n < want.Bytes-512<<10 {
			t.Errorf("%s took %d bytes, want nearly %d", c.ID, n, want.Bytes)
		}
		if _, after, err := s.Limits(ctx, c.ID); err != nil || after.Bytes < used.Bytes+n-512<<10 {
			t.Errorf("usage of %s: %v and then %v, %v", c.ID, used, after, err)
		}
		if err := os.Remove(filepath.Join(dir, "file")); err != nil {
			t.Error(err)
		}
		made := int64(0)
		for made < 2*inodes && os.WriteFile(filepath.Join(dir, "f"+strings.Repeat("x", int(made))), nil, 0o600) == nil {
			made++
		}
		if made > inodes || made < inodes-15 {
			t.Errorf("%s took %d files, want nearly %d", c.ID, made, inodes)
		}
		unmountFrom(t, s, c.ID)
	}
	changesLimits(t, e, s)
	probe, err := os.Open(e.root)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"default", "larger"} {
		var layer string
		_ = s.View(ctx, func(tx *store.Tx) error { layer = tx.ContainerByID(id).Layer; return nil })
		project, b := quotaOf(t, filepath.Join(e.root, "overlay", layer))
		if project == 0 || b == (projquota.Bounds{}) {
			t.Errorf("%s: project %d, %v", id, project, b)
		}
		if err := s.DeleteContainer(ctx, id); err != nil {
			t.Error(err)
		}
		waitRemovals(t, s)
		if b, _, err := projquota.Look(probe, project); err != nil || b != (projquota.Bounds{}) {
			t.Errorf("%s is deleted, but its project has %v, %v", id, b, err)
		}
	}
	if err := probe.Close(); err != nil {
		t.Error(err)
	}
}

func mountAt(t *testing.T, s *store.Store, id string) string {
	t.Helper()
	dir, err := s.Mount(context.Background(), id, drivers.MountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func unmountFrom(t *testing.T, s *store.Store, id string) {
	t.Helper()
	if _, err := s.Unmount(context.Background(), id, false); err != nil {
		t.Error(err)
	}
}

// changesLimits gives a layer that has none a limit, changes it and takes it
// away.
func changesLimits(t *testing.T, e *lifeEnv, s *store.Store) {
	t.Helper()
	ctx := context.Background()
	importLayer(t, s, store.LayerSpec{ID: "free"}, makeTar(t, entry{name: "d/"}, entry{name: "d/f", text: strings.Repeat("x", 1<<20)}))
	for _, want := range []drivers.Limits{{}, {Bytes: 3 << 20}, {Bytes: 2 << 20, Inodes: 40}, {}, {Inodes: 9}} {
		if err := s.SetLimits(ctx, "free", want); err != nil {
			t.Fatal(err)
		}
		got, used, err := s.Limits(ctx, "free")
		if err != nil || got != want {
			t.Errorf("limits are %v, %v, want %v", got, err, want)
		}
		if want != (drivers.Limits{}) && (used.Bytes < 1<<20 || used.Bytes > 3<<19 || used.Inodes < 3) {
			t.Errorf("usage %v", used)
		}
	}
	if err := s.SetLimits(ctx, "free", drivers.Limits{Bytes: 2 << 20}); err != nil {
		t.Fatal(err)
	}
	dir := mountAt(t, s, "free")
	if n := fillUp(t, filepath.Join(dir, "d", "g")); n > 1<<20 {
		t.Errorf("took %d bytes beside what there was", n)
	}
	unmountFrom(t, s, "free")
	// A copy that takes the layer's place has its limits.
	if err := os.Remove(filepath.Join(e.root, "overlay", "free", "diff", "d", "g")); err != nil {
		t.Error(err)
	}
	before, _ := quotaOf(t, filepath.Join(e.root, "overlay", "free"))
	st := get(t, s.StageDiff, ctx, "free")
	if _, err := st.Import(ctx, bytes.NewReader(makeTar(t, entry{name: "more", text: "x"}))); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if after, _ := quotaOf(t, filepath.Join(e.root, "overlay", "free")); after == before {
		t.Errorf("the copy has the project %d of what it replaced", after)
	}
	if got, _, err := s.Limits(ctx, "free"); err != nil || got.Bytes != 2<<20 {
		t.Errorf("limits after a diff: %v, %v", got, err)
	}
	if err := s.DeleteLayer(ctx, "free"); err != nil {
		t.Error(err)
	}
}

// Where nothing holds a limit, asking for one says so, and changes nothing.
func TestLimitsRefused(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		s := e.open()
		ctx := context.Background()
		_, err := s.CreateContainer(ctx, store.ContainerSpec{ID: "c", Limits: drivers.Limits{Bytes: 1 << 20}})
		if err == nil {
			t.Skip("this filesystem has project quotas: see TestLimits")
		}
		want(t, err, errno.ErrNotSupported)
		get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "c"})
		want(t, s.SetLimits(ctx, "c", drivers.Limits{Bytes: 1 << 20}), errno.ErrNotSupported)
		want(t, s.SetLimits(ctx, "c", drivers.Limits{Bytes: -1}), errno.ErrBadValue)
		want(t, s.SetLimits(ctx, "none", drivers.Limits{}), errno.ErrUnknown)
		if err := s.SetLimits(ctx, "c", drivers.Limits{}); err != nil {
			t.Error(err)
		}
		if l, _, err := s.Limits(ctx, "c"); err != nil || l != (drivers.Limits{}) {
			t.Errorf("limits %v, %v", l, err)
		}
		o := e.options()
		o.DriverOptions = append(o.DriverOptions, drivers.Option{Key: "size", Value: "1g"})
		_, err = store.Open(ctx, o)
		want(t, err, errno.ErrNotSupported)
		o.DriverOptions[len(o.DriverOptions)-1].Value = "1x"
		if _, err = store.Open(ctx, o); err == nil {
			t.Error("a size of 1x is accepted")
		}
	})
}

// A kernel with project quotas, as a program, runs TestLimits where the
// machine's own has none.
func TestLimitsInUserModeLinux(t *testing.T) {
	t.Parallel()
	text := fusetest.UserModeLinux(t, "^TestLimits$")
	if !strings.Contains(text, "status 0") || strings.Count(text, "--- PASS: TestLimits/") != len(quotaFilesystems()) {
		t.Errorf("in user-mode Linux:\n%s", text)
	}
}
