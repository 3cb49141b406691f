package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// asUser runs a script as an ordinary user who has the program as `plyfs`;
// $1 is a copy of the folder scripts.
func asUser(t *testing.T, u fusetest.User, script string) fusetest.Result {
	t.Helper()
	needsMount(t)
	u.Env = append(u.Env, "PATH="+programDir+":"+os.Getenv("PATH"), "PLYFS_BINARY="+filepath.Join(programDir, "plyfs"), "LC_ALL=C")
	scripts := filepath.Join(t.TempDir(), "scripts")
	if err := os.CopyFS(scripts, os.DirFS("../../scripts")); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{scripts, filepath.Dir(scripts), filepath.Dir(filepath.Dir(scripts))} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"run.sh", "stop.sh"} {
		if err := os.Chmod(filepath.Join(scripts, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return fusetest.AsUser(t, u, gone+script, scripts)
}

// gone is a function of the scripts that names the processes that stay: one
// that lets go of its files last of all is still there for a moment.
const gone = `
gone() {
	for i in $(seq 200); do pgrep plyfs >/dev/null || return 0; sleep 0.05; done
	echo left behind; pgrep -a plyfs
}
`

// wantLines checks that each line is printed, in this order.
func wantLines(t *testing.T, r fusetest.Result, lines ...string) {
	t.Helper()
	rest := r.Out
	for _, l := range lines {
		_, after, ok := strings.Cut(rest, l)
		if !ok {
			t.Fatalf("%q is missing in order; status %d, output:\n%s\nerrors:\n%s", l, r.Status, r.Out, r.Err)
		}
		rest = after
	}
}

// TestUserMounts: the mount is in the user's own shell, files of subordinate
// IDs can be read, and nothing is left by umount, SIGTERM or a failure.
func TestUserMounts(t *testing.T) {
	t.Parallel()
	r := asUser(t, fusetest.User{}, `
mkdir mnt
plyfs demo import
plyfs mount mnt && echo mounted
stat -c '%u %g' mnt/images/localhost%2Fhello:latest/tree/srv/notes mnt/version
cat mnt/images/localhost%2Fhello:latest/tree/srv/notes
mkdir mnt/images/localhost%2Fhello:latest/containers/web
echo mine > mnt/containers/web/merged/etc/mine && stat -c 'made %u %g' mnt/containers/web/merged/etc/mine
mkdir mnt/layers/big; head -c 9M /dev/urandom > large; tar cf mnt/layers/big/diff.tar large
cmp large mnt/layers/big/tree/large && exec 5<mnt/layers/big/tree/large && cmp large mnt/layers/big/tree/large && cmp large - <&5 && echo large files are the same; exec 5<&-
plyfs umount mnt && echo unmounted
gone
plyfs mount -f mnt & pid=$!
until [ -e mnt/version ]; do sleep 0.01; done
kill $pid; wait $pid; echo "ended $?"
gone; grep " $HOME/.*fuse.plyfs" /proc/self/mountinfo
plyfs mount --root nothing mnt; echo "refused $?"
grep " $HOME/.*fuse.plyfs" /proc/self/mountinfo
plyfs ls containers; plyfs rmdir containers/web && echo removed
`)
	wantLines(t, r, "imported localhost/hello:latest\n", "mounted\n", "100006 100007\n", "1000 1000\n",
		"One layer over another.\n", "made 1000 1000\n", "large files are the same\n", "unmounted\n", "ended 0\n", "refused 1\n", "by-name\nweb\nremoved\n")
	if strings.Contains(r.Out, "fuse.plyfs") || strings.Contains(r.Out, "left behind") {
		t.Errorf("a mount or a process was left:\n%s", r.Out)
	}
	if want := "plyfs: there is no overlay store in "; strings.Count(r.Err, "\n") != 1 || !strings.HasPrefix(r.Err, want) {
		t.Errorf("errors:\n%s", r.Err)
	}
}

// A program that runs in merged/ does not keep a server that was told to end: the
// mount below is given back, and the program may live on as long as it can.
func TestUserShutsDown(t *testing.T) {
	t.Parallel()
	r := asUser(t, fusetest.User{}, `
mkdir mnt
plyfs demo import >/dev/null
plyfs mkdir images/localhost%2Fhello:latest/containers/web
plyfs mount --pid-file pid --log-file log mnt
cp "$(command -v busybox || command -v sleep)" mnt/containers/web/merged/sleep
(cd mnt/containers/web/merged; exec ./sleep 1000 >/dev/null 2>&1) & sleeper=$!
until [ "$(cat /proc/$sleeper/comm)" = sleep ]; do sleep 0.01; done
echo umount > mnt/containers/web/ctl; cat mnt/containers/web/error
kill $(cat pid); while [ -e pid ]; do sleep 0.05; done
gone; cat log
plyfs cat containers/web/mount
plyfs mount mnt && echo again && plyfs umount mnt
kill $sleeper
`)
	wantLines(t, r, "the mount is in use: a program has sleep open through this tree; end it, or", "count 0\nagain\n")
	if strings.Contains(r.Out, "left behind") || strings.Contains(r.Out, "level=") {
		t.Errorf("output:\n%s", r.Out)
	}
}

// Owners are the subordinate IDs, or with owners=container those that the
// containers have; what is made and given away has the real ones below. diff.tar
// speaks of the container's in both, and control files belong to the user.
func TestUserSeesOwners(t *testing.T) {
	t.Parallel()
	r := asUser(t, fusetest.User{}, `
mkdir mnt
plyfs demo import >/dev/null
I=images/localhost%2Fhello:latest
plyfs mkdir $I/containers/web
look() { plyfs mount $1 mnt && stat -c '%u %g' mnt/$I/tree/srv/notes mnt/$I/layer/diff/srv/notes mnt/version mnt/containers/web/dir; }
look; plyfs umount mnt
look -oowners=container
cd mnt/containers/web
tar c -C tree srv/notes | tar tv --numeric-owner | cut -d' ' -f2
touch merged/mine && chown 33:34 merged/given merged/mine 2>/dev/null; stat -c 'made %u %g' merged/mine
chown 100007 merged/mine 2>&1 | grep -o 'Invalid argument'
mkdir -m 700 merged/closed; chown 5 merged/closed; ls merged/closed && echo entered
tar tvf diff.tar --numeric-owner mine | cut -d' ' -f2
cd; plyfs umount mnt
plyfs mount mnt; stat -c 'host %u %g' mnt/containers/web/diff/mine; cd mnt/containers/web
touch merged/acl && setfacl -m u:100032:r,u:1000:r,g:100033:w merged/acl && getfacl -cn merged/acl | tr '\n' ' '; echo
setfacl -m u:55:r merged/acl 2>&1 | grep -o 'Invalid argument'; cd; plyfs umount mnt
plyfs mount -oowners=container mnt; getfacl -cnp mnt/containers/web/diff/acl | tr '\n' ' '; plyfs umount mnt; plyfs rmdir containers/web; echo
plyfs mkdir $I/containers/web; plyfs mount mnt; cd mnt/containers/web; touch merged/closed merged/mine; chown 100004 merged/closed; chown 100032:100033 merged/mine; cd; plyfs umount mnt
plyfs ls -l containers/web/diff | cut -d' ' -f3,4
plyfs ls -l --owners container containers/web/diff | cut -d' ' -f3,4
plyfs ls -l version --owners container | cut -d' ' -f3,4
plyfs ls --owners mine
`)
	wantLines(t, r, "100006 100007\n100006 100007\n1000 1000\n1000 1000\n", "7 8\n7 8\n1000 1000\n1000 1000\n",
		"7/8\n", "made 33 34\n", "Invalid argument\n", "entered\n", "33/34\n", "host 100032 100033\n",
		" user:1000:r-- user:100032:r-- ", " group:100033:-w- ", "Invalid argument\n", " user:0:r-- user:33:r-- ", " group:34:-w- ",
		"100004 1000\n100032 100033\n", "5 0\n33 34\n", "1000 1000\n")
	if want := "plyfs: --owners \"mine\": use host or container\n"; r.Err != want {
		t.Errorf("errors:\n%s", r.Err)
	}
}

// With one ID all files are the user's; what they would belong to is known of
// layers, and shown with owners=container, but gives nobody any rights.
func TestUserSeesOwnersWithoutSubordinateIDs(t *testing.T) {
	t.Parallel()
	r := asUser(t, fusetest.User{NoSubIDs: true}, `
mkdir mnt
plyfs demo import >/dev/null 2>&1
I=images/localhost%2Fhello:latest
plyfs mount mnt 2>/dev/null; stat -c '%u %g' mnt/$I/tree/srv/notes mnt/$I/tree/etc/passwd; plyfs umount mnt
plyfs mount -o owners=container mnt 2>/dev/null; stat -c '%u %g' mnt/$I/tree/srv/notes mnt/$I/tree/etc/passwd mnt/version; cat mnt/$I/tree/srv/notes; plyfs umount mnt
find "$(plyfs cat config/graphroot 2>/dev/null)" -name '*.tar-split.gz' -delete
plyfs cat $I/layer/diff.tar 2>/dev/null | tar tv --numeric-owner srv/notes
`)
	wantLines(t, r, "1000 1000\n1000 1000\n", "7 8\n0 0\n1000 1000\n", "One layer over another.\n", " 7/8 ", "srv/notes\n")
}

// Stores and directories of others are refused in one sentence.
func TestUserIsRefused(t *testing.T) {
	t.Parallel()
	r := asUser(t, fusetest.User{}, `
mkdir mnt; mkdir -m 0 deny
plyfs mount --root /root/store mnt
plyfs ls --root /root/store
plyfs mount deny/mnt
plyfs mount /etc
plyfs mount --create -o allow_other mnt
plyfs umount /etc
grep " $HOME/.*fuse.plyfs" /proc/self/mountinfo; gone
`)
	if r.Out != "" {
		t.Errorf("output:\n%s", r.Out)
	}
	lines := strings.Split(strings.TrimSuffix(r.Err, "\n"), "\n")
	want := []string{"may not be opened by this user", "may not be opened by this user", "permission denied", "/etc is not yours", "user_allow_other", "/etc is not a mount point"}
	if len(lines) != len(want) {
		t.Fatalf("%d sentences, want %d:\n%s", len(lines), len(want), r.Err)
	}
	for i, l := range lines {
		if !strings.HasPrefix(l, "plyfs: ") || !strings.Contains(l, want[i]) {
			t.Errorf("%q lacks %q", l, want[i])
		}
	}
}

// TestUserWithoutSubordinateIDs has one ID, which is told.
func TestUserWithoutSubordinateIDs(t *testing.T) {
	t.Parallel()
	r := asUser(t, fusetest.User{NoSubIDs: true}, `
mkdir mnt
plyfs mount --create mnt && echo mounted
mkdir mnt/layers/one && cat mnt/layers/one/names
plyfs umount mnt && echo unmounted
`)
	wantLines(t, r, "mounted\n", "one\n", "unmounted\n")
	if !strings.Contains(r.Err, "subordinate") {
		t.Errorf("errors:\n%s", r.Err)
	}
}

// Machines without FUSE are told what to install and what works without.
func TestUserWithoutFUSE(t *testing.T) {
	t.Parallel()
	script := "mkdir mnt; plyfs mount --create mnt; echo \"refused $?\"; ls -A .local .config; plyfs demo import; plyfs ls images"
	for want, u := range map[string]fusetest.User{
		"there is no /dev/fuse":   {NoDevice: true},
		"there is no fusermount3": {NoHelper: true},
	} {
		r := asUser(t, u, script)
		wantLines(t, r, "refused 1\n", "imported", "localhost%2Fhello:latest\n")
		if !strings.HasPrefix(r.Err, "plyfs: "+want) || !strings.Contains(r.Err, "`plyfs ls` and its like need no mount\n") {
			t.Errorf("%s: errors:\n%s", want, r.Err)
		}
		if strings.Contains(r.Out, "containers\n") {
			t.Errorf("%s: a store was made by a mount that failed:\n%s", want, r.Out)
		}
	}
}

// TestRunAndStop runs what make run and make stop run, twice each, as an
// ordinary user; as root the session of README.md has the same commands.
func TestRunAndStop(t *testing.T) {
	t.Parallel()
	r := asUser(t, fusetest.User{}, `
export PLYFS_DEMO=$HOME/demo
"$1/run.sh" >/dev/null && "$1/run.sh"; echo "run $?"
grep -c " $HOME/.*fuse.plyfs" /proc/self/mountinfo
"$1/stop.sh"; echo "stop $?"
"$1/stop.sh"; echo "stop $?"
ls "$HOME"; gone; grep " $HOME/.*fuse.plyfs" /proc/self/mountinfo; echo end
`)
	if r.Err != "" {
		t.Errorf("errors:\n%s", r.Err)
	}
	_, block, _ := session(t)
	tour := strings.TrimSuffix(block[strings.Index(block, "$ ls mnt\n"):], "$ plyfs umount mnt\n")
	printed := strings.ReplaceAll(r.Out, "\n\n$ ", "\n$ ")
	if !strings.Contains(printed, tour) {
		t.Errorf("the tour shows something else than README.md:\n%s", printed)
	}
	wantLines(t, r, "The demo is mounted already.", "run 0\n1\n", "removed ", "stop 0\n", "no demo to stop\nstop 0\nend\n")
}
