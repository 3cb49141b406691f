package fuseoverlay

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/idmap"
)

// unmappedScript does what concerns owners in $1, where 0… of what is on disk is
// shown as 1000… and 2000…, and prints each errno. f is of a mapped owner, other
// of one that is not.
const unmappedScript = `
import os, sys, errno, stat
os.chdir(sys.argv[1])
def owner(p):
	s = os.lstat(p)
	return "%d:%d %o" % (s.st_uid, s.st_gid, stat.S_IMODE(s.st_mode))
def do(what, f, *a):
	try:
		f(*a)
		print(what, "ok")
	except OSError as e:
		print(what, errno.errorcode[e.errno])
acl = lambda uid: b"\x02\0\0\0" + b"".join(bytes([t, 0, p, 0]) + i.to_bytes(4, "little") for t, p, i in
	[(1, 6, 2**32-1), (2, 7, uid), (4, 4, 2**32-1), (16, 7, 2**32-1), (32, 4, 2**32-1)])
print("shown", owner("f"), owner("other"))
for p in "f", "other":
	for uid, gid in (1004, 2004), (1005, -1), (-1, 2005), (9, -1), (-1, 9), (1003, 9), (65534, -1), (0, 0), (70000, -1), (1001, 2001):
		do("chown %s %d:%d" % (p, uid, gid), os.chown, p, uid, gid)
		print(owner(p))
do("acl", os.setxattr, "f", "system.posix_acl_access", acl(1003))
do("acl for another", os.setxattr, "f", "system.posix_acl_access", acl(9))
do("chmod", os.chmod, "f", 0o754)
print(owner("f"))
`

// A mount with ID maps answers what concerns IDs that they do not have as the
// kernel's ID-mapped mounts do, but where docs/overlay.md says otherwise.
func TestUnmappedOwners(t *testing.T) {
	t.Parallel()
	fill := "echo x >f; echo x >other; chown 1:1 f; chown 77:77 other; chown 0:0 .; chmod 777 ."
	r := newRig(t, "")
	r.config.UIDs = []idmap.Range{{ContainerID: 0, HostID: 1000, Size: 10}}
	r.config.GIDs = []idmap.Range{{ContainerID: 0, HostID: 2000, Size: 10}}
	for _, name := range []string{"plain", "mapped"} {
		check(t, os.Mkdir(filepath.Join(r.dir, name), 0o755))
	}
	fusetest.Must(t, "for d in $1/plain $1/u; do cd $d; "+fill+"; done", r.dir)
	mapped := idMapped(t, filepath.Join(r.dir, "plain"), r.config.UIDs, r.config.GIDs)
	run := func(dir string) string { return fusetest.Must(t, `python3 -c "$1" "$2"`, unmappedScript, dir) }
	want := run(mapped)
	r.start()
	if got := run(r.mount); got != want {
		t.Error(difference(t, want, got))
	}
}

// idMapped returns a path to dir through an ID-mapped mount.
func idMapped(t *testing.T, dir string, uids, gids []idmap.Range) string {
	t.Helper()
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), idMappedMount(t, dir, uids, gids))
}

// idMappedMount returns the descriptor of an ID-mapped mount of dir, which is
// mounted nowhere.
func idMappedMount(t *testing.T, dir string, uids, gids []idmap.Range) int {
	t.Helper()
	ranges := func(rs []idmap.Range) (out []syscall.SysProcIDMap) {
		for _, r := range rs {
			out = append(out, syscall.SysProcIDMap{ContainerID: r.ContainerID, HostID: r.HostID, Size: r.Size})
		}
		return out
	}
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ranges(uids), GidMappings: ranges(gids), Pdeathsig: syscall.SIGKILL}
	check(t, cmd.Start())
	defer func() {
		check(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	}()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	check(t, err)
	defer func() { check(t, ns.Close()) }()
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	check(t, err)
	t.Cleanup(func() { check(t, unix.Close(fd)) })
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		t.Skipf("no ID-mapped mounts of %s here: %v", dir, err)
	}
	return fd
}
