package store_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/overlay"
	"github.com/plyfs/plyfs/store"
)

// shiftedEnv is a store of the driver overlay, on a kernel that maps owners of
// lowers.
func shiftedEnv(t *testing.T) (*lifeEnv, *store.Store) {
	t.Helper()
	e := newLifeEnv(t, "overlay")
	s := e.open()
	if drivers.ShiftOf(s.Driver()) != drivers.ShiftLowers {
		t.Skip("this kernel, or the filesystem of the test's folder, has no ID-mapped lower directories")
	}
	importLayer(t, s, store.LayerSpec{ID: "base"}, ownedTar(t, "etc/ 0 0", "etc/one 1 2", "low 7 8"))
	importLayer(t, s, store.LayerSpec{ID: "top", Parent: "base"}, ownedTar(t, "etc/ 0 0", "etc/two 5 6"))
	get(t, s.CreateImage, context.Background(), store.ImageSpec{ID: "img", Layer: "top"})
	return e, s
}

// Where the kernel maps owners, a container with maps needs no copy of its
// image: it looks as the peer's does, each mounts the other's, and what is
// written in it has the container's owners in its diff.
func TestShiftedContainersAsPeer(t *testing.T) {
	t.Parallel()
	e, s := shiftedEnv(t)
	ctx := context.Background()
	c := get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ours", Image: "img", Maps: someMaps(100000, 200000)})
	mounted(t, s, "ours", func(dir string) { // before the peer, which gives the root to the host's
		var st unix.Stat_t
		want(t, unix.Stat(dir, &st), nil)
		if st.Uid != 100000 || st.Gid != 200000 {
			t.Errorf("the root belongs to %d:%d, not to the container's root", st.Uid, st.Gid)
		}
	})
	e.peer("create-container", "--id", "theirs", "--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536", "img")
	tree := []string{"etc 755 100000:200000", "etc/one 4751 100001:200002", "etc/two 4751 100005:200006", "low 4751 100007:200008"}
	for _, id := range []string{"ours", "theirs"} {
		mounted(t, s, id, func(dir string) {
			if diff := cmp.Diff(tree, owners(t, dir)); diff != "" {
				t.Errorf("our mount of %s: %s", id, diff)
			}
		})
		dir := strings.TrimSpace(e.peer("mount", id))
		if diff := cmp.Diff(tree, owners(t, dir)); diff != "" {
			t.Errorf("the peer's mount of %s: %s", id, diff)
		}
		e.peer("unmount", id)
	}
	view(t, s, func(tx *store.Tx) error {
		l, img := tx.LayerByID(c.Layer), tx.ImageByID("img")
		if !l.Maps.Empty() || l.Parent != "top" || len(img.MappedLayers) > 0 {
			t.Errorf("a layer was mapped: %+v %+v", l, img)
		}
		return nil
	})
	mounted(t, s, "ours", func(dir string) {
		for _, file := range []string{"mine", "etc/two"} {
			path := filepath.Join(dir, file)
			want(t, os.WriteFile(path, []byte("x"), 0o600), nil)
			want(t, os.Chown(path, 100003, 200003), nil)
		}
	})
	if got := tarOwners(t, s, c.Layer); !slices.Contains(got, "mine 3:3") || !slices.Contains(got, "etc/two 3:3") || !slices.Contains(got, "etc/ 0:0") {
		t.Errorf("diff: %v", got)
	}
	if left := mountsBelow(t, e.root+"/overlay"); len(left) > 0 {
		t.Errorf("still mounted: %v", left)
	}
	want(t, s.Wipe(ctx, nil), nil)
	e.onlyEmpty(t)
}

// A mapped mount that a killed process left is in nobody's way.
func TestShiftedLeftovers(t *testing.T) {
	t.Parallel()
	e, s := shiftedEnv(t)
	ctx := context.Background()
	c := get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ours", Image: "img", Maps: someMaps(100000, 200000)})
	home := filepath.Join(e.root, "overlay")
	at := filepath.Join(home, c.Layer, "mapped", "0")
	stack := func() {
		want(t, os.MkdirAll(at, 0o700), nil)
		for range 2 {
			want(t, unix.Mount(home, at, "", unix.MS_BIND, ""), nil)
		}
	}
	stack()
	mounted(t, s, "ours", func(dir string) {
		if got := owners(t, dir); !slices.Contains(got, "low 4751 100007:200008") {
			t.Errorf("%v", got)
		}
	})
	stack()
	want(t, s.DeleteContainer(ctx, "ours"), nil)
	if left := mountsBelow(t, home); len(left) > 0 {
		t.Errorf("still mounted: %v", left)
	}
}

// With the peers' variable in the environment nothing is mapped at the mount.
func TestIDMapDisabled(t *testing.T) {
	e := newLifeEnv(t, "overlay")
	t.Setenv("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
	d, err := overlay.New(drivers.Config{Root: e.root, RunRoot: e.run})
	want(t, err, nil)
	if drivers.ShiftOf(d) != drivers.NoShift {
		t.Error("the driver would map at the mount")
	}
	want(t, drivers.Shutdown(context.Background(), d), nil)
}

// podman runs a container with ID maps on our image; what it wrote is in our
// diff with the container's owners, and it starts a container that we made.
func TestShiftedContainersOfPodman(t *testing.T) {
	t.Parallel()
	needs(t, "podman")
	e := newLifeEnv(t, "overlay")
	s := e.open()
	ctx := context.Background()
	importLayer(t, s, store.LayerSpec{ID: strings.Repeat("ab", 32)}, busyboxTar(t))
	img, err := s.CreateMinimalImage(ctx, store.ImageSpec{Layer: strings.Repeat("ab", 32), Names: []string{"localhost/app:latest"}})
	want(t, err, nil)
	out := e.podman("run", "--name", "mapped", "--network=none", "--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536",
		"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "localhost/app", "/bin/busybox", "sh", "-c",
		"busybox touch /tmp/mine && busybox chown 3:4 /tmp/mine && busybox stat -c %u:%g /bin/busybox /tmp/mine")
	if strings.Join(strings.Fields(out), " ") != "0:0 3:4" {
		t.Errorf("inside: %q", out)
	}
	var layer string
	view(t, s, func(tx *store.Tx) error {
		c, err := tx.Container("mapped")
		if err != nil {
			return err
		}
		layer = c.Layer
		if c.Image != img.ID || len(c.Maps.UIDs) == 0 || c.Maps.UIDs[0].HostID != 100000 {
			t.Errorf("podman's container is %+v", c)
		}
		return nil
	})
	if got := tarOwners(t, s, layer); !slices.Contains(got, "tmp/mine 3:4") {
		t.Errorf("diff: %v", got)
	}
	mounted(t, s, "mapped", func(dir string) {
		got := owners(t, dir)
		if !slices.ContainsFunc(got, func(l string) bool {
			return strings.HasPrefix(l, "bin/busybox ") && strings.HasSuffix(l, " 100000:200000")
		}) {
			t.Errorf("our mount shows %v", got)
		}
	})
}
