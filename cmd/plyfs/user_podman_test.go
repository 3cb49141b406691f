package main

import (
	"os/exec"
	"testing"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// A merged/ that was taken before podman has its namespace is one that podman
// cannot see. Let go of by ctl, it is podman's to mount, with what was written.
func TestUserLetsGoForPodman(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"podman", "containers-storage"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(program + " is not installed")
		}
	}
	r := asUser(t, fusetest.User{}, `
mkdir mnt
plyfs demo import >/dev/null
plyfs mkdir images/localhost%2Fhello:latest/containers/web
plyfs mount mnt
echo ours > mnt/containers/web/merged/ours
head -1 mnt/containers/web/mount
podman --cgroup-manager cgroupfs ps >/dev/null 2>&1
podman unshare ls $(sed -n 's/^path //p' mnt/containers/web/mount) | grep -c ours
echo umount > mnt/containers/web/ctl; head -1 mnt/containers/web/mount
podman unshare sh -c 'm=$(containers-storage mount web) && cat $m/ours; containers-storage umount web' 2>/dev/null
plyfs umount mnt
podman system migrate 2>/dev/null
gone
`)
	wantLines(t, r, "count 1\n", "0\n", "count 0\n", "ours\n", "unmounted\n")
}
