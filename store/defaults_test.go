package store_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/store"
)

// TestRemappedStore: layers without a parent get the store's maps, as
// containers-storage makes them under the same storage.conf.
func TestRemappedStore(t *testing.T) {
	t.Parallel()
	needs(t, "containers-storage")
	e := newLifeEnv(t, "vfs")
	conf := filepath.Join(t.TempDir(), "storage.conf")
	text := "[storage]\ndriver='vfs'\ngraphroot='" + e.root + "'\nrunroot='" + e.run + "'\n" +
		"[storage.options]\nremap-uids='0:1000:65536'\nremap-gids='0:2000:65536'\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o := e.options()
	o.Maps = idmap.Maps{
		UIDs: []idmap.Range{{ContainerID: 0, HostID: 1000, Size: 65536}},
		GIDs: []idmap.Range{{ContainerID: 0, HostID: 2000, Size: 65536}},
	}
	s, err := store.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	own := get(t, s.CreateLayer, context.Background(), store.LayerSpec{ID: "ours", Maps: idmap.Maps{UIDs: []idmap.Range{{ContainerID: 0, HostID: 5, Size: 6}}}})
	if len(own.Maps.UIDs) != 1 || own.Maps.UIDs[0].HostID != 5 || own.Maps.GIDs != nil {
		t.Errorf("named maps became %v", own.Maps)
	}
	get(t, s.CreateLayer, context.Background(), store.LayerSpec{ID: "remapped"})
	if host := get(t, s.CreateLayer, context.Background(), store.LayerSpec{ID: "host", HostIDs: true}); !host.Maps.Empty() {
		t.Errorf("the host's IDs became %v", host.Maps)
	}
	if over := get(t, s.CreateLayer, context.Background(), store.LayerSpec{ID: "over", Parent: "remapped"}); len(over.Maps.UIDs) != 1 || over.Maps.UIDs[0].HostID != 1000 {
		t.Errorf("above the remapped layer: %v", over.Maps)
	}
	cmd := []string{"CONTAINERS_STORAGE_CONF=" + conf, "containers-storage", "create-layer", "-i", "peer"}
	if out, err := exec.Command("env", cmd...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want, got := e.record(t, "layers", "peer"), e.record(t, "layers", "remapped")
	for _, k := range []string{"uidmap", "gidmap"} {
		if d := cmp.Diff(want[k], got[k]); d != "" || want[k] == nil {
			t.Errorf("%s: %s", k, d)
		}
	}
	for _, id := range []string{"peer", "remapped"} {
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(e.root, "vfs/dir", id), &st); err != nil || st.Uid != 1000 || st.Gid != 2000 {
			t.Errorf("%s belongs to %d:%d, %v", id, st.Uid, st.Gid, err)
		}
	}
	o.Maps.UIDs = append(o.Maps.UIDs, o.Maps.UIDs[0])
	if _, err := store.Open(context.Background(), o); errno.Of(err) != syscall.EINVAL {
		t.Errorf("maps that overlap: %v", err)
	}
}

// TestDisableVolatile: a volatile container's mount syncs what it is told to.
func TestDisableVolatile(t *testing.T) {
	t.Parallel()
	for _, disable := range []bool{false, true} {
		e := newLifeEnv(t, "overlay")
		o := e.options()
		o.DisableVolatile = disable
		s, err := store.Open(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		c := get(t, s.CreateContainer, context.Background(), store.ContainerSpec{ID: "ctr", Volatile: true})
		path, err := s.Mount(context.Background(), c.ID, drivers.MountOptions{})
		if err != nil {
			t.Fatal(err)
		}
		table, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for line := range strings.Lines(string(table)) {
			if strings.Contains(line, " "+path+" ") {
				found = true
				if strings.Contains(line, "volatile") == disable {
					t.Errorf("disabled: %v, but %s", disable, line)
				}
			}
		}
		if !found {
			t.Errorf("nothing is mounted on %s", path)
		}
		if _, err := s.Unmount(context.Background(), c.ID, false); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
