package store_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/store"
)

// podmanAuto makes a container with --userns=auto, in a mount namespace where
// /etc/subuid and /etc/subgid are the file subs.
func (e *lifeEnv) podmanAuto(subs, name string, size int) error {
	e.t.Helper()
	script := `set -e; mount --bind "$1" /etc/subuid; mount --bind "$1" /etc/subgid; shift; exec podman "$@"`
	_, err := output(exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", subs,
		"--root", e.root, "--runroot", e.run, "--storage-driver", e.driver, "--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime", "runc",
		"create", "--userns=auto:size="+strconv.Itoa(size), "--network=none", "--name", name, "image", "sh"))
	return err
}

// podman and we give out IDs of one user in turns: each sees what the other
// gave, gives again what the other's deleted containers had, and has none left
// when the other took the last.
func TestAutoMapsWithPodman(t *testing.T) {
	t.Parallel()
	for driver := range constructors() {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			e, with := autoEnv(t, driver)
			needs(t, "podman")
			needs(t, "unshare")
			for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
				if _, err := os.Stat(file); err != nil {
					t.Skipf("needs a file to put another in place of: %v", err)
				}
			}
			subs := filepath.Join(t.TempDir(), "subs")
			want(t, os.WriteFile(subs, []byte("containers:100000:10000\n"), 0o644), nil)
			s := e.openWith(func(o store.Options) store.Options { return store.WithSubIDFiles(with(o), subs, subs) })
			ctx := context.Background()
			image := strings.Repeat("ab", 32) // podman has no others
			importLayer(t, s, store.LayerSpec{ID: "base"}, ownedTar(t, "a 0 0", "b 7 7"))
			get(t, s.CreateMinimalImage, ctx, store.ImageSpec{ID: image, Layer: "base", Names: []string{"localhost/image:latest"}})
			ours := func(name string, size int) error {
				_, err := s.CreateContainer(ctx, store.ContainerSpec{ID: name, Names: []string{name}, Image: image, Metadata: "{}", Auto: &store.AutoMaps{Size: size, MaxSize: 20000}})
				return err
			}
			want(t, e.podmanAuto(subs, "p1", 1000), nil)
			want(t, ours("o1", 1500), nil)
			want(t, e.podmanAuto(subs, "p2", 2000), nil)
			want(t, ours("o2", 2500), nil)
			given(t, s, map[string]int{"p1": 1000, "o1": 1500, "p2": 2000, "o2": 2500})
			want(t, ours("o3", 3001), errno.ErrQuota)
			if err := e.podmanAuto(subs, "p3", 3001); err == nil {
				t.Error("podman gave more IDs than are left")
			}
			e.podman("rm", "p1")
			want(t, ours("o4", 1000), nil)
			want(t, s.DeleteContainer(ctx, "o1"), nil)
			want(t, e.podmanAuto(subs, "p4", 1500), nil)
			want(t, ours("o5", 3000), nil)
			given(t, s, map[string]int{"o4": 1000, "p4": 1500, "p2": 2000, "o2": 2500, "o5": 3000})
			if err := e.podmanAuto(subs, "p5", 1); err == nil {
				t.Error("podman gave an ID of a full range")
			}
		})
	}
}

// given looks whether each container has as many IDs, and none has another's.
func given(t *testing.T, s *store.Store, sizes map[string]int) {
	t.Helper()
	view(t, s, func(tx *store.Tx) error {
		seen := map[int]string{}
		for name, size := range sizes {
			c, err := tx.Container(name)
			if err != nil {
				return err
			}
			for _, ranges := range [][]idmap.Range{c.Maps.UIDs, c.Maps.GIDs} {
				n := 0
				for _, r := range ranges {
					n += r.Size
				}
				if n != size {
					t.Errorf("%s has %d IDs, want %d: %v", name, n, size, ranges)
				}
			}
			for _, r := range c.Maps.UIDs {
				for id := r.HostID; id < r.HostID+r.Size; id++ {
					if seen[id] != "" || id < 100000 || id >= 110000 {
						t.Fatalf("ID %d is %s's, and %q has it", id, name, seen[id])
					}
					seen[id] = name
				}
			}
		}
		return nil
	})
}
