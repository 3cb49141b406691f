package overlay_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/drivertest"
	"github.com/plyfs/plyfs/internal/mounts"
)

// peer runs containers-storage on the graph root of s.
func peer(t *testing.T, s *drivertest.Store, options []string, args ...string) string {
	t.Helper()
	all := []string{"--graph", s.Config.Root, "--run", s.Config.RunRoot, "--storage-driver", "overlay"}
	for _, o := range options {
		all = append(all, "--storage-opt", "overlay."+o)
	}
	cmd := exec.Command("containers-storage", append(all, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("containers-storage %q: %v: %s%s", args, err, out, stderr.String())
	}
	if len(out) == 0 { // status
		out = stderr.Bytes()
	}
	return strings.TrimSpace(string(out))
}

func needPeer(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	if _, err := exec.LookPath("containers-storage"); err != nil {
		t.Skip("needs containers-storage: ", err)
	}
}

// record writes a layer's record as the store would, so that the peer knows it.
func record(t *testing.T, s *drivertest.Store, id, parent string) {
	t.Helper()
	path := filepath.Join(s.Config.Root, "overlay-layers", "layers.json")
	var layers []map[string]any
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &layers); err != nil {
		t.Fatal(err)
	}
	layers = append(layers, map[string]any{"id": id, "parent": parent, "created": time.Now().UTC()})
	if b, err = json.Marshal(layers); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, path, text string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || string(b) != text {
		t.Errorf("%s: %q, %v; want %q", path, b, err, text)
	}
}

// The peer mounts a layer that we published on one of its own, while it has
// the home bound on itself, which makes a plain rename into it EXDEV.
func TestPeerMountsOurs(t *testing.T) {
	needPeer(t)
	t.Parallel()
	for name, m := range map[string]drivertest.Maker{"kernel": kernel(), "program": program(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := drivertest.Open(t, m, "root")
			var options []string
			for _, o := range m.Options {
				options = append(options, o.Key+"="+o.Value)
			}
			peer(t, s, options, "create-layer", "-i", "theirs")
			dir := peer(t, s, options, "mount", "theirs")
			put(t, filepath.Join(dir, "f"), "theirs")
			put(t, filepath.Join(dir, "gone"), "theirs")
			peer(t, s, options, "unmount", "theirs")
			if is, err := mounts.IsMountPoint(filepath.Join(s.Config.Root, "overlay")); !is || err != nil {
				t.Fatalf("this test needs the peer's bind mount: %v, %v", is, err)
			}
			s.Layer("ours", "theirs", func(p drivers.Private) {
				put(t, filepath.Join(p.Dir, "g"), "ours")
				drivertest.Hide(t, p, "gone")
			})
			record(t, s, "ours", "theirs")
			peer(t, s, options, "create-layer", "-i", "top", "ours")
			dir = peer(t, s, options, "mount", "top")
			want(t, filepath.Join(dir, "f"), "theirs")
			want(t, filepath.Join(dir, "g"), "ours")
			if _, err := os.Stat(filepath.Join(dir, "gone")); !os.IsNotExist(err) {
				t.Errorf("our whiteout: %v", err)
			}
			peer(t, s, options, "unmount", "top")
			if got := peer(t, s, options, "changes", "ours"); !strings.Contains(got, `Add "/g"`) || !strings.Contains(got, `Delete "/gone"`) {
				t.Errorf("changes: %s", got)
			}
			peer(t, s, options, "delete-layer", "top")
			if err := s.Driver.Retire(s.Stage(), "ours"); err != nil {
				t.Error(err)
			}
		})
	}
}

// We mount, list and unite layers that the peer made, with its links lost too.
func TestOursMountTheirs(t *testing.T) {
	needPeer(t)
	t.Parallel()
	s := drivertest.Open(t, kernel(), "root")
	parent := ""
	for i := range 4 {
		id := fmt.Sprintf("layer%d", i)
		peer(t, s, nil, "create-layer", "-i", id, parent)
		dir := peer(t, s, nil, "mount", id)
		put(t, filepath.Join(dir, fmt.Sprintf("f%d", i)), id)
		peer(t, s, nil, "unmount", id)
		parent = id
	}
	if err := os.RemoveAll(filepath.Join(s.Config.Root, "overlay", "l")); err != nil {
		t.Fatal(err)
	}
	ids, err := s.Driver.List()
	if err != nil || len(ids) != 4 {
		t.Fatalf("List: %q, %v", ids, err)
	}
	for _, id := range ids {
		if has, err := s.Driver.Has(id); !has || err != nil {
			t.Errorf("Has(%s): %v, %v", id, has, err)
		}
	}
	dirs, err := s.Driver.Dirs(parent)
	if err != nil || len(dirs) != 4 {
		t.Fatalf("Dirs: %q, %v", dirs, err)
	}
	dir, unmount := s.Mount(parent, drivers.MountOptions{})
	for i := range 4 {
		want(t, filepath.Join(dir, fmt.Sprintf("f%d", i)), fmt.Sprintf("layer%d", i))
	}
	unmount()
	peer(t, s, nil, "mount", parent)
	peer(t, s, nil, "unmount", parent)
}

// A peer that comes after our mount binds the home on itself unless it is a
// mount point; without ours there it would then not see the mount.
func TestPeerSeesOurMount(t *testing.T) {
	needPeer(t)
	t.Parallel()
	s := drivertest.Open(t, kernel(), "root")
	s.Layer("a", "", nil)
	s.Layer("b", "a", nil)
	dir, unmount := s.Mount("b", drivers.MountOptions{})
	put(t, filepath.Join(dir, "f"), "1")
	peer(t, s, nil, "layers")
	want(t, filepath.Join(dir, "f"), "1")
	unmount()
	if is, err := mounts.IsMountPoint(dir); is || err != nil {
		t.Errorf("still mounted: %v, %v", is, err)
	}
}

// A child of ours on a layer of a read-only store mounts with the peer's tool.
func TestImageStore(t *testing.T) {
	needPeer(t)
	t.Parallel()
	ro := drivertest.Open(t, kernel(), "ro")
	peer(t, ro, nil, "create-layer", "-i", "base")
	dir := peer(t, ro, nil, "mount", "base")
	put(t, filepath.Join(dir, "f"), "base")
	peer(t, ro, nil, "unmount", "base")
	s := drivertest.Open(t, kernel(), "rw", drivers.Option{Key: "imagestore", Value: ro.Config.Root})
	options := []string{"imagestore=" + ro.Config.Root}
	peer(t, s, options, "create-layer", "-i", "other")
	s.Layer("ours", "base", nil)
	record(t, s, "ours", "base")
	dir = peer(t, s, options, "mount", "ours")
	want(t, filepath.Join(dir, "f"), "base")
	peer(t, s, options, "unmount", "ours")
	dir, _ = s.Mount("ours", drivers.MountOptions{})
	want(t, filepath.Join(dir, "f"), "base")
	dir, _ = s.Mount("base", drivers.MountOptions{ReadOnly: true})
	want(t, filepath.Join(dir, "f"), "base")
	if _, err := s.Driver.Mount("base", drivers.MountOptions{}); err == nil {
		t.Error("a layer of a read-only store can be mounted for writing")
	}
}

// Status prints what the peer prints, in each mode.
func TestStatusEqualsPeers(t *testing.T) {
	needPeer(t)
	t.Parallel()
	for i, o := range []drivers.Option{
		{Key: "mountopt", Value: "nodev"}, {Key: "mountopt", Value: "nodev,metacopy=on"},
		{Key: "mountopt", Value: "redirect_dir=on"}, {Key: "mount_program", Value: fuseOverlayfs},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			s := drivertest.Open(t, kernel(), "root", o)
			var ours []string
			for _, kv := range s.Driver.Status() {
				ours = append(ours, kv[0]+": "+kv[1])
			}
			other := drivertest.Open(t, kernel(), "peers") // no cache of ours is read
			theirs := strings.SplitN(peer(t, other, []string{o.Key + "=" + o.Value}, "status"), "\n", 5)
			if got := theirs[len(theirs)-1]; got != strings.Join(ours, "\n") {
				t.Errorf("ours:\n%s\ntheirs:\n%s", strings.Join(ours, "\n"), got)
			}
		})
	}
}

// A home that a mount program wrote is not mounted by the kernel, which does
// not know its whiteouts.
func TestMarkerChoosesProgram(t *testing.T) {
	needPeer(t)
	t.Parallel()
	s := drivertest.Open(t, program(t), "root")
	s.Layer("a", "", func(p drivers.Private) { put(t, filepath.Join(p.Dir, "f"), "1") })
	s.Layer("b", "a", func(p drivers.Private) { drivertest.Hide(t, p, "f") })
	cfg := s.Config
	cfg.Options = nil
	d, err := kernel().New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := d.Mount("b", drivers.MountOptions{})
	if err != nil || plan.Program == "" {
		t.Fatalf("no program in the plan: %+v, %v", plan, err)
	}
	if err := mounts.Do(context.Background(), plan); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := mounts.Unmount(context.Background(), plan.Target, true); err != nil {
			t.Error(err)
		}
	}()
	if _, err := os.Stat(filepath.Join(plan.Target, "f")); !os.IsNotExist(err) {
		t.Errorf("the whiteout does not hide: %v", err)
	}
}
