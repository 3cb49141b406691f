package fusetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// User describes the ordinary user of AsUser.
type User struct {
	// NoSubIDs leaves the user without subordinate IDs.
	NoSubIDs bool
	// NoDevice leaves /dev/fuse out.
	NoDevice bool
	// NoHelper hides fusermount3.
	NoHelper bool
	// Conf is the text of /etc/fuse.conf; empty: an empty file.
	Conf string
	// Env holds further NAME=value settings.
	Env []string
}

// The ordinary user's IDs, and the first of its 65536 subordinate ones.
const (
	UserID   = 1000
	SubFirst = 100000
)

// namespace prepares what an ordinary user needs, in a mount namespace of its
// own, and becomes that user. $1 is a folder, $2 the user's script.
const namespace = `set -e
T=$1; script=$2; shift 2
mount --make-rprivate /
mkdir -p "$T/ns"
mount -t tmpfs -o mode=0755 tmpfs "$T/ns"
if [ -z "$NO_DEVICE" ]; then
	mknod -m 0666 "$T/ns/fuse" c 10 229
	mount --bind "$T/ns/fuse" /dev/fuse
else
	mount -t tmpfs -o mode=0755 tmpfs "$T/ns"
	mkdir "$T/ns/dev"
	for n in null zero urandom random tty; do touch "$T/ns/dev/$n"; mount --bind /dev/$n "$T/ns/dev/$n"; done
	ln -s /proc/self/fd "$T/ns/dev/fd"
	mount --rbind "$T/ns/dev" /dev
fi
if [ -n "$NO_HELPER" ]; then
	mkdir "$T/ns/empty"; printf '#!/bin/sh\n' > "$T/ns/none"
	for n in /usr/bin/fusermount3 /usr/bin/fusermount /bin/fusermount3 /bin/fusermount; do
		if [ -e $n ]; then mount --bind "$T/ns/none" $n; fi
	done
fi
{ grep -v ':x:1000:' /etc/passwd; echo "plyuser:x:1000:1000::$T/home:/bin/sh"; } > "$T/ns/passwd"
{ grep -v ':x:1000:' /etc/group; echo "plyuser:x:1000:"; } > "$T/ns/group"
: > "$T/ns/subuid"; : > "$T/ns/subgid"
if [ -z "$NO_SUBIDS" ]; then
	echo plyuser:100000:65536 > "$T/ns/subuid"
	echo plyuser:100000:65536 > "$T/ns/subgid"
fi
printf '%s' "$FUSE_CONF" > "$T/ns/fuse.conf"
for f in passwd group subuid subgid fuse.conf; do
	[ -e /etc/$f ] || continue
	mount --bind "$T/ns/$f" /etc/$f
done
mkdir -p "$T/home" "$T/run"
chown 1000:1000 "$T/home" "$T/run"; chmod 0700 "$T/run"
export HOME=$T/home XDG_RUNTIME_DIR=$T/run USER=plyuser LOGNAME=plyuser
unset XDG_CONFIG_HOME XDG_DATA_HOME SUDO_UID SUDO_GID
cd "$HOME"
exec setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all --bounding-set=+all /bin/bash -c "$script" script "$@"
`

// AsUser runs a shell script as an ordinary user with ID 1000, in namespaces
// for mounts and processes of its own: it has a /dev/fuse that everyone may
// use, an entry in /etc/passwd, subordinate IDs 100000–165535, a home and a
// runtime folder. A test binary that it runs is a Child. Nothing on the host changes and nothing survives the script.
// It skips the test where this process is not root.
func AsUser(t testing.TB, u User, script string, args ...string) Result {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	for _, p := range []string{"unshare", "setpriv"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("util-linux's %s is not here", p)
		}
	}
	dir := t.TempDir()
	for d := dir; d != "/" && d != "."; d = filepath.Dir(d) {
		if st, err := os.Stat(d); err == nil && st.Mode()&0o011 != 0o011 {
			if err := os.Chmod(d, st.Mode()|0o711); err != nil {
				t.Fatal(err)
			}
		}
	}
	env := append([]string{"FUSE_CONF=" + u.Conf, childEnv + "=1"}, u.Env...)
	for name, on := range map[string]bool{"NO_SUBIDS": u.NoSubIDs, "NO_DEVICE": u.NoDevice, "NO_HELPER": u.NoHelper} {
		if on {
			env = append(env, name+"=1")
		}
	}
	all := append([]string{"--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "/bin/bash", "-c", namespace, "namespace", dir, script}, args...)
	return run(t, env, "unshare", all...)
}

// Exe returns a copy of this test binary that every user may run.
func Exe(t testing.TB) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// By a child: had we it open for writing, a process that another test starts
	// meanwhile would have it, too, and it would be busy.
	p := filepath.Join(t.TempDir(), "exe")
	Must(t, `cp "$1" "$2"; chmod 755 "$2"`, self, p)
	return p
}
