package fuseoverlay

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"github.com/plyfs/plyfs/internal/fusetest"
)

func TestMain(m *testing.M) { os.Exit(fusetest.Main(m)) }

// rig is a mount under test: layers, upper, work and mount point in a folder
// of its own.
type rig struct {
	t      testing.TB
	dir    string
	lowers []string
	config MountConfig
	mount  string
	served chan error
	server *Server
}

// newRig makes the folders; scripts fill the lower layers, top first.
func newRig(t testing.TB, layers ...string) *rig {
	t.Helper()
	needRoot(t)
	r := &rig{t: t, dir: t.TempDir()}
	for i, script := range layers {
		l := filepath.Join(r.dir, "l", string(rune('a'+i)))
		fusetest.Must(t, "mkdir -p $1; cd $1; umask 022\n"+script, l)
		r.lowers = append(r.lowers, l)
	}
	for _, d := range []string{"u", "w", "m"} {
		check(t, os.Mkdir(filepath.Join(r.dir, d), 0o755))
	}
	r.mount = filepath.Join(r.dir, "m")
	r.config = MountConfig{Lower: r.lowers, Upper: filepath.Join(r.dir, "u"), Work: filepath.Join(r.dir, "w")}
	return r
}

// start mounts; the test's end unmounts.
func (r *rig) start() *rig {
	r.t.Helper()
	s, err := Mount(r.config, r.mount)
	check(r.t, err)
	served := make(chan error, 1)
	r.server, r.served = s, served
	go func() { served <- s.Serve() }()
	r.t.Cleanup(r.stop)
	return r
}

// stop unmounts and waits until everything is given back.
func (r *rig) stop() {
	if r.served == nil {
		return
	}
	if err := r.ended(r.unmount()); err != nil {
		r.t.Errorf("serve: %v", err)
	}
	r.served = nil
}

// unmount returns the mount's device.
func (r *rig) unmount() (dev string) {
	r.t.Helper()
	for _, m := range mountsOf("self") {
		if m.at == r.mount {
			dev = m.dev
		}
	}
	if out := fusetest.Script(r.t, "umount $1", r.mount); out.Status != 0 {
		r.t.Errorf("umount: %s", out.Err)
		fusetest.Script(r.t, "umount -l $1", r.mount)
	}
	return dev
}

// ended waits for the server of the mount dev to end. Whoever made a mount
// namespace meanwhile (unshare, podman: other tests do) has the mount in it,
// and as long as that lives the server goes on, rightly. So it is waited for as
// long as there is one.
func (r *rig) ended(dev string) error {
	for {
		select {
		case err := <-r.served:
			return err
		case <-time.After(20 * time.Second):
		}
		who := ""
		procs, err := filepath.Glob("/proc/[0-9]*")
		check(r.t, err)
		for _, p := range procs {
			for _, m := range mountsOf(filepath.Base(p)) {
				if m.dev == dev {
					cmd, _ := os.ReadFile(p + "/cmdline")
					who = fmt.Sprintf("%s (%q) has it at %s", p, cmd, m.at)
				}
			}
		}
		if who == "" {
			return errors.New("the server goes on without a mount")
		}
		r.t.Logf("the server goes on: %s", who)
	}
}

// mounted is a line of a mountinfo: a device as MAJOR:MINOR, and where it is.
type mounted struct{ dev, at string }

// mountsOf returns the mounts that a process sees; none of one that is gone.
func mountsOf(pid string) (out []mounted) {
	b, _ := os.ReadFile("/proc/" + pid + "/mountinfo")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 {
			out = append(out, mounted{f[2], f[4]})
		}
	}
	return out
}

// TestMountInAnotherNamespace: a mount that somebody's mount namespace still has
// is served there after it was unmounted here, and the server ends with it.
func TestMountInAnotherNamespace(t *testing.T) {
	t.Parallel()
	r := newRig(t, "echo a > a").start()
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", `echo ready; read x; cat "$1/a"`, "sh", r.mount)
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	lines := bufio.NewReader(out)
	first, err := lines.ReadString('\n')
	check(t, err)
	dev := r.unmount()
	check(t, in.Close())
	second, err := lines.ReadString('\n')
	if first != "ready\n" || second != "a\n" || err != nil {
		t.Errorf("the other namespace reads %q, %q, %v", first, second, err)
	}
	check(t, cmd.Wait())
	check(t, r.ended(dev))
	r.served = nil
}

// do runs a script in the mount, which must succeed.
func (r *rig) do(script string) string {
	r.t.Helper()
	return fusetest.Must(r.t, "cd $1\n"+script, r.mount, r.dir)
}

// go-fuse's conformance suite, over one layer and over several.
func TestPosix(t *testing.T) {
	t.Parallel()
	for name, layers := range map[string][]string{
		"one":     {""},
		"several": {"mkdir -p CreateFile x; echo > x/y", "mkdir -p x; echo > x/z", ""},
	} {
		for mode, passthrough := range map[string]Passthrough{"": PassthroughOff, "-passthrough": PassthroughOnly} {
			t.Run(name+mode, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, layers...)
				r.config.Passthrough = passthrough
				r.start()
				res := fusetest.Child(t, "TestPosixChild", "POSIX="+r.mount)
				if res.Status != 0 {
					t.Errorf("%s\n%s", res.Out, res.Err)
				}
			})
		}
	}
}

// TestPosixChild drives the mount of TestPosix.
func TestPosixChild(t *testing.T) {
	if !fusetest.IsChild() {
		t.Skip("runs as a child of TestPosix")
	}
	exceptions := map[string]string{
		"FcntlFlockLocksFile": "go-fuse itself leaves it out: it opens the same file in the server's process",
		"OpenSymlinkRace":     "go-fuse itself leaves it out: it takes minutes",
	}
	names := make([]string, 0, len(posixtest.All))
	for name := range posixtest.All {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			if why := exceptions[name]; why != "" {
				t.Skip(why)
			}
			dir := filepath.Join(os.Getenv("POSIX"), name)
			check(t, os.MkdirAll(dir, 0o755))
			posixtest.All[name](t, dir)
		})
	}
}

// fillScript is a layer's content, and workScript what is done to it: the same on a plain
// directory and through the mount.
const fillScript = `
	mkdir -p d/e low/sub/deep low/empty; echo hello > d/f; ln d/f d/g; ln -s ../../../nowhere/out out; ln -s d sd
	mkfifo p; mknod n c 1 3; chmod 4755 d/f; chown 12:34 d/e; chown -h 12:34 out; chmod 2777 d/e; chmod 1777 d
	seq 1000 > low/file; echo a > low/sub/a; echo b > low/sub/deep/b; ln low/sub/a low/hard
	touch -d '2001-02-03 04:05:06.789' d/f; touch -h -d 2002-03-04 sd; touch -d 1999-01-01 low/sub low
	setfattr -n user.a -v b d/f; setfattr -n trusted.t -v u d/f; setfattr -h -n trusted.s -v w sd
	mkdir acl; setfacl -m u:55:rwx acl; setfacl -d -m u:56:r-x acl; echo a > acl/file
	truncate -s 1000000 sparse; printf end | dd of=sparse bs=1 seek=900000 conv=notrunc status=none
	mkdir doomed doomed/in; echo x > doomed/in/x; cp /bin/true prog; setcap cap_net_raw+ep prog 2>/dev/null || true
`

const workScript = `
	umask 027
	setpriv --reuid 77 --regid 88 --clear-groups sh -c 'umask 022; mkdir d/e/s2; echo x > d/e/file; ln -s q d/e/link; mknod d/e/fifo p; chmod 640 d/e/file'
	chmod 600 d/g; echo more >> low/hard; mv low/sub moved; mv moved/deep low/; rm -r doomed; mkdir doomed
	rm -r low/empty; echo now > low/empty; mv d/f renamed; ln renamed low/third; rm out; mkdir out; echo o > out/o
	mkdir acl/in; mkfifo acl/fifo; setfacl -d -m g::rwx,o::rwx acl; mkdir acl/open; echo b > acl/open/file; chmod 640 acl/open/file
	rm acl/file; echo again > acl/file; rm -r acl/in; mkdir acl/in
	cp --sparse=always sparse sparse2; cp -a d d2; mv d2 d/moved
	echo 1 > over; echo 2 > over2; mv over2 over; mv over low/file
	exec 3> unlinked; rm unlinked; echo still >&3; exec 3>&-
	seq 1000 > app; echo more >> app; head -c 5 app > app2; : > app2; : > low/deep/b
	dd if=/dev/zero of=big bs=64k count=40 status=none; fallocate -p -o 65536 -l 65536 big
	python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("s")'
	perl -e 'open(F, "+<", "big"); truncate(F, 100000); close F'
	tar cf t.tar d acl; mkdir x; tar xf t.tar -C x; rm t.tar; rm p; echo file > p; rm n; ln -s p n
	echo x >> prog; setfattr -n user.new -v v sparse; setfattr -x user.a renamed; chown -h 5:6 sd; touch -d 2003-01-01 low
	mv x y; rm -r y; mv low low2; mkdir low; touch low/z; find . > /dev/null
`

// showScript prints everything of a tree but what overlays cannot keep equal: links,
// sizes and numbers of directories.
const showScript = `
	find . -printf '%p %y %m %U %G %l %A@ \n' | sed 's/ [0-9.]* $//' | sort
	find . ! -type d -printf 'links %p %n\n' | sort
	find . -type f ! -name sparse2 -printf '%p %s\n' | sort
	find . -type f -exec sha256sum {} + | sort
	find . ! -newermt 2010-01-01 -printf '%p %T@\n' | sort
	find . ! -type d -links +1 -printf '%i %p\n' | sort -k2 | awk '{ if (!($1 in first)) first[$1] = $2; print first[$1], $2 }'
	find . -print0 | sort -z | xargs -0 getfattr -h -d -m -
	find . ! -type l -print0 | sort -z | xargs -0 getfacl -s
`

// The same commands on a plain directory, on the kernel's overlay and through
// the mount leave the same files, also after a remount, and the kernel sees
// them too.
func TestSameAsPlainDirectory(t *testing.T) {
	t.Parallel()
	r := newRig(t, "mkdir -p low; echo top > low/top; echo t > t", fillScript)
	plain := t.TempDir()
	fusetest.Must(t, "chmod 755 $1; cd $1; umask 022\n"+fillScript+"echo top > low/top; echo t > t; touch -d 1999-01-01 low", plain)
	fusetest.Must(t, "touch -d 1999-01-01 $1/low", r.lowers[0])
	fusetest.Must(t, "cd $1\n"+workScript, plain)
	want := fusetest.Must(t, "cd $1\n"+showScript, plain)
	r.start()
	r.do(workScript)
	compare := func(when, got string) {
		t.Helper()
		if got != want {
			t.Errorf("%s:\n%s", when, difference(t, want, got))
		}
	}
	compare("through the mount", r.do(showScript))
	r.stop()
	r.start()
	compare("after a remount", r.do(showScript))
	r.stop()
	for _, opts := range []string{"index=on", "index=off"} {
		got := fusetest.Must(t, `
			mount -t overlay o -o $3,lowerdir=$4,upperdir=$1/u,workdir=$1/w $2
			trap 'cd /; umount $2' EXIT; cd $2`+showScript, r.dir, r.mount, opts, strings.Join(r.lowers, ":"))
		if opts == "index=off" { // the index is one link more: docs/overlay.md
			got, want = withoutLinks(got), withoutLinks(want)
		}
		compare("through the kernel, "+opts, got)
	}
}

func withoutLinks(s string) string {
	return regexp.MustCompile(`(?m)^links .*\n`).ReplaceAllString(s, "")
}

func difference(t testing.TB, want, got string) string {
	t.Helper()
	dir := t.TempDir()
	for name, s := range map[string]string{"want": want, "got": got} {
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(s), 0o600))
	}
	return fusetest.Script(t, `cd $1; diff want got | head -60`, dir).Out
}

// A file that had no attributes when it was looked up gets some, before and
// after it is copied up.
func TestFirstAttributes(t *testing.T) {
	t.Parallel()
	r := newRig(t, "echo x >f; echo y >g; echo z >h", "").start()
	r.do(`has() { [ "$(getfattr --only-values -n "$1" "$2")" = "$3" ]; }
	hasnt() { ! getfattr -n "$1" "$2" 2>/dev/null; }
	ls -l >/dev/null
	hasnt user.a f; setfattr -n user.a -v 1 f; has user.a f 1
	chmod 600 g; hasnt user.a g; setfattr -n user.a -v 2 g; has user.a g 2; setfattr -x user.a g; hasnt user.a g
	setfacl -m u:1:r h; getfacl -n h | grep -q user:1:r--
	mv f f2; has user.a f2 1; ln g g2; setfattr -n user.b -v 3 g2; has user.b g 3`)
}
