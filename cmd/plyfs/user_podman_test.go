package main

import (
	"os/exec"
	"strings"
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

// The same container by a user's podman and by merged/ at once: plyfs joins the
// namespace of podman's pause process, so that both see one mount.
func TestUserPodmanRunsWhatIsMounted(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"podman", "runc", "busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(program + " is not installed")
		}
	}
	r := asUser(t, fusetest.User{}, `
export TMPDIR=$HOME # the one of the tests is not this user's
mkdir -p mnt i/bin i/proc i/dev i/sys i/tmp i/etc i/run
cp "$(command -v busybox)" i/bin/busybox
p="podman --cgroup-manager=cgroupfs --events-backend=file --runtime runc"
tar c -C i . | $p import --quiet - box:1 >/dev/null || exit
$p create --name run --network=none --ulimit nofile=1024:1024 box:1 /bin/busybox sleep 1000 >/dev/null || exit
plyfs mount mnt
c=mnt/containers/run
echo before > $c/merged/before; head -1 $c/mount
$p start run >/dev/null; head -1 $c/mount
$p exec run /bin/busybox cat /before
echo during > $c/merged/during; $p exec run /bin/busybox cat /during
$p exec run /bin/busybox sh -c 'echo inside > /inside'; cat $c/merged/inside
unshare -Urm --propagation private cat $c/merged/inside
rmdir $c 2>/dev/null || sed 's/,.*//' $c/error
$p stop -t 0 run >/dev/null; head -1 $c/mount; cat $c/merged/inside
echo after > $c/merged/after; echo umount > $c/ctl; head -1 $c/mount
$p start run >/dev/null; $p exec run /bin/busybox cat /after
$p rm -f -t 0 run >/dev/null; ls mnt/containers
plyfs umount mnt && echo unmounted
$p system migrate 2>/dev/null
gone
`)
	wantLines(t, r, "count 1\n", "count 2\n", "before\n", "during\n", "inside\n", "inside\n", `container "run" is managed by podman`,
		"count 1\n", "inside\n", "count 0\n", "after\n", "by-id\nby-name\n", "unmounted\n")
	if strings.Contains(r.Out, "left behind") {
		t.Errorf("a process was left:\n%s", r.Out)
	}
}
