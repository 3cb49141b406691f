package vfs_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/drivertest"
	"github.com/plyfs/plyfs/drivers/vfs"
)

// The peer mounts, copies and deletes layers of ours, and we of the peer's.
func TestPeer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the peer enters a user namespace otherwise")
	}
	if _, err := exec.LookPath("containers-storage"); err != nil {
		t.Skip("needs containers-storage: ", err)
	}
	s := drivertest.Open(t, drivertest.Maker{New: vfs.New}, "root")
	peer := func(args ...string) string {
		t.Helper()
		all := append([]string{"--graph", s.Config.Root, "--run", s.Config.RunRoot, "--storage-driver", "vfs"}, args...)
		out, err := exec.Command("containers-storage", all...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	peer("create-layer", "-i", "theirs")
	check(os.WriteFile(filepath.Join(peer("mount", "theirs"), "f"), []byte("1"), 0o644))
	peer("unmount", "theirs")
	s.Layer("ours", "theirs", func(p drivers.Private) {
		check(os.WriteFile(filepath.Join(p.Dir, "g"), []byte("2"), 0o644))
	})
	records := filepath.Join(s.Config.Root, "vfs-layers", "layers.json")
	var layers []map[string]any
	b, err := os.ReadFile(records)
	check(err)
	check(json.Unmarshal(b, &layers))
	b, err = json.Marshal(append(layers, map[string]any{"id": "ours", "parent": "theirs", "created": time.Now().UTC()}))
	check(err)
	check(os.WriteFile(records, b, 0o600))
	peer("create-layer", "-i", "top", "ours")
	dir := peer("mount", "top")
	for name, want := range map[string]string{"f": "1", "g": "2"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	peer("unmount", "top")
	if has, err := s.Driver.Has("top"); !has || err != nil {
		t.Errorf("Has: %v, %v", has, err)
	}
	if got := peer("changes", "ours"); got != `Add "/g"` {
		t.Errorf("changes: %s", got)
	}
	peer("delete-layer", "top")
	peer("delete-layer", "ours")
	if has, err := s.Driver.Has("ours"); has || err != nil {
		t.Errorf("after delete-layer: %v, %v", has, err)
	}
}
