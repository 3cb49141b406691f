package conformance

import (
	"fmt"
	"maps"
	"os"
	"testing"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// The ways in which an ordinary user mounts, as shell commands before the
// program's own.
var userWays = map[string]string{
	"userns":     "unshare -U --map-auto --map-root-user -m", // with subordinate IDs, as podman does
	"one-id":     "unshare -U --map-root-user -m",
	"fusermount": "exec",
}

// userWorlds are those of an ordinary user.
func userWorlds(t *testing.T, how string) []world {
	if how == "" {
		return nil
	}
	one := how != "userns"
	var ws []world
	if os.Getenv("PLYFS_LONG") != "" {
		ws = append(ws, world{name: "directory", user: true, oneID: one}) // these two prove the suite
		if how != "fusermount" {
			ws = append(ws, world{name: "kernel-1", layers: 1, mount: kernelUserMount, user: true, oneID: one, known: knownKernelUser})
		}
	}
	for _, p := range programs(t) {
		if p.name != peerName { // which proves nothing more of the suite
			known := maps.Clone(p.known)
			if how == "fusermount" {
				maps.Copy(known, knownFusermount)
			}
			ws = append(ws, world{name: p.name + "-1", layers: 1, mount: p.mount, known: known, user: true, oneID: one})
		}
	}
	return ws
}

// TestAsUser runs the suite as an ordinary user, in each way.
func TestAsUser(t *testing.T) {
	need(t)
	path, err := ours()
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"PLYFS_LONG=" + os.Getenv("PLYFS_LONG"), "PLYFS_FUSE_OVERLAY=" + path, "GORACE=" + os.Getenv("GORACE")}
	for how, before := range userWays {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			script := fmt.Sprintf(`export TMPDIR=$HOME HOW=%s; %s "$1" -test.run '^TestInUser$' -test.v`, how, before)
			reportChild(t, fusetest.AsUser(t, fusetest.User{Env: env}, script, fusetest.Exe(t)))
		})
	}
}

// TestInUser is the child of TestAsUser.
func TestInUser(t *testing.T) {
	how := os.Getenv("HOW")
	if how == "" {
		t.Skip("runs as a child of TestAsUser")
	}
	for _, w := range userWorlds(t, how) {
		t.Run(w.name, func(t *testing.T) { runSuite(t, w) })
	}
}
