package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// program is the real one, built once as make builds it; unlinked is that of go build,
// which begins as every program does (front.go).
var program, unlinked string

func TestMain(m *testing.M) {
	if fusetest.IsChild() {
		os.Exit(m.Run())
	}
	if err := fusetest.Apart(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "plyfs-fuse-overlay-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // ordinary users run it too
	}
	program, unlinked = filepath.Join(dir, "fuse-overlay"), filepath.Join(dir, "plain", "fuse-overlay")
	err = errors.Join(err, build(unlinked, ""), build(program, front()))
	code := 1
	if err == nil {
		code = fusetest.Main(m)
	}
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// build builds the program with a flag for the linker.
func build(path, flag string) error {
	cmd := exec.Command("go", "build", "-ldflags", "-X main.version=v1.2.3 "+flag, "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
}

// front is the linker's flag for a program that forks before it begins.
func front() string {
	if runtime.GOOS == "linux" && runtime.GOARCH == "amd64" {
		return "-E main.entry"
	}
	return ""
}

func needsMount(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts as root; run it as root")
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
}

// layers makes lower, upper, work and mount point in a folder and returns it
// and an option list.
func layers(t *testing.T) (dir, options string) {
	t.Helper()
	dir = t.TempDir()
	for _, d := range []string{"lower", "upper", "work", "m"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "lower/f"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for mounted(t, dir+"/m") {
			if err := unix.Unmount(dir+"/m", unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}
	})
	return dir, "lowerdir=" + dir + "/lower,upperdir=" + dir + "/upper,workdir=" + dir + "/work"
}

func mounted(t *testing.T, dir string) bool {
	t.Helper()
	is, err := mountinfo.Mounted(dir)
	if err != nil && !errors.Is(err, unix.ENOTCONN) {
		t.Fatal(err)
	}
	return is || errors.Is(err, unix.ENOTCONN)
}

// call runs the program; its standard error is a pipe that is read to its end.
func call(t *testing.T, args ...string) (out, errOut string, status int) {
	t.Helper()
	return callOf(t, program, args...)
}

func callOf(t *testing.T, program string, args ...string) (out, errOut string, status int) {
	t.Helper()
	cmd := exec.Command(program, args...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

func umount(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"--help", "-h"} {
		if out, e, status := call(t, flag); status != 0 || e != "" || !strings.Contains(out, "lowerdir=") {
			t.Errorf("%s: %d %q %q", flag, status, out, e)
		}
	}
	for _, flag := range []string{"--version", "-V"} {
		if out, _, status := call(t, flag); status != 0 || !strings.HasPrefix(out, "fuse-overlay: version v1.2.3\n") {
			t.Errorf("%s: %d %q", flag, status, out)
		}
	}
}

// TestRefused: what cannot be mounted is one line on standard error, and
// nothing is mounted.
func TestRefused(t *testing.T) {
	needsMount(t)
	t.Parallel()
	dir, options := layers(t)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"nothing":        {nil, "no mount point"},
		"no layer":       {[]string{dir + "/m"}, "lowerdir"},
		"bad value":      {[]string{"-o", options + ",timeout=x", dir + "/m"}, "timeout"},
		"unknown flag":   {[]string{"-x", "-o", options, dir + "/m"}, "-x"},
		"strict":         {[]string{"-o", options + ",strict,podman", dir + "/m"}, "podman"},
		"no mount point": {[]string{"-o", options, dir + "/none"}, dir + "/none does not exist"},
		"no directory":   {[]string{"-o", options, dir + "/lower/f"}, "not a directory"},
		"lower is gone":  {[]string{"-o", "lowerdir=" + dir + "/none", dir + "/m"}, dir + "/none does not exist"},
		"lower is file":  {[]string{"-o", "lowerdir=" + dir + "/lower/f", dir + "/m"}, "not a directory"},
		"work is gone":   {[]string{"-o", "lowerdir=" + dir + "/lower,upperdir=" + dir + "/upper,workdir=" + dir + "/none", dir + "/m"}, "workdir"},
		"stats":          {[]string{"-o", options + ",stats=" + dir + "/none/numbers", dir + "/m"}, "the option stats"},
		"other disk":     {[]string{"-o", "lowerdir=" + dir + "/lower,upperdir=" + dir + "/upper,workdir=/dev/shm", dir + "/m"}, "workdir"},
	} {
		for _, f := range []string{"", "-f", "unlinked"} {
			args, program := c.args, program
			switch f {
			case "-f":
				args = append([]string{f}, args...)
			case "unlinked":
				program = unlinked
			}
			out, e, status := callOf(t, program, args...)
			if status != 1 || out != "" || !strings.Contains(e, c.want) || strings.Count(e, "\n") != 1 || !strings.HasPrefix(e, "fuse-overlay: ") {
				t.Errorf("%s %s: %d %q %q", name, f, status, out, e)
			}
		}
	}
	if mounted(t, dir+"/m") {
		t.Error("it is mounted")
	}
}

// TestDetaches: when the program returns the mount is there, standard error is
// let go of, and the server ends with the mount.
func TestDetaches(t *testing.T) {
	needsMount(t)
	t.Parallel()
	dir, options := layers(t)
	out, e, status := call(t, "-o", options+",podman,x=y,,noatime", dir+"/m")
	if status != 0 || out != "" || e != "fuse-overlay: warning: unknown options podman, x ignored\n" {
		t.Errorf("%d %q %q", status, out, e)
	}
	fusetest.Must(t, `grep " $1 fuse.fuse-overlay .*noatime" /proc/mounts; test "$(cat "$1/f")" = text; echo new > "$1/f"; rm "$1/f"`, dir+"/m")
	umount(t, dir+"/m")
}

// TestReadOnly: without an upper nothing can be changed.
func TestReadOnly(t *testing.T) {
	needsMount(t)
	t.Parallel()
	dir, options := layers(t)
	for _, o := range []string{"lowerdir=" + dir + "/lower", options + ",ro"} {
		if _, e, status := call(t, "-o", o, dir+"/m"); status != 0 || e != "" {
			t.Fatalf("%d %q", status, e)
		}
		r := fusetest.Script(t, `cat "$1/f"; echo x > "$1/new"; rm "$1/f"`, dir+"/m")
		if r.Out != "text" || strings.Count(r.Err, "Read-only file system") != 2 {
			t.Errorf("%s: %+v", o, r)
		}
		umount(t, dir+"/m")
	}
}

// TestSignals: each ends the mount, a busy one too.
func TestSignals(t *testing.T) {
	needsMount(t)
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		dir, options := layers(t)
		cmd := exec.Command(program, "-f", "-o", options, dir+"/m")
		var e bytes.Buffer
		cmd.Stderr = &e
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for !mounted(t, dir+"/m") {
			time.Sleep(5 * time.Millisecond)
		}
		fd, err := unix.Open(dir+"/m/f", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		for mounted(t, dir+"/m") {
			time.Sleep(5 * time.Millisecond)
		}
		if _, err := unix.Pwrite(fd, []byte("T"), 0); err != nil {
			t.Errorf("%v: write by who still has it open: %v", sig, err)
		}
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil || e.Len() > 0 {
			t.Errorf("%v: %v: %s", sig, err, e.String())
		}
		if b, err := os.ReadFile(dir + "/upper/f"); err != nil || string(b) != "Text" {
			t.Errorf("%v: the upper has %q, %v", sig, b, err)
		}
	}
}

// TestAutoUnmount: a killed server's mount goes.
func TestAutoUnmount(t *testing.T) {
	needsMount(t)
	t.Parallel()
	dir, options := layers(t)
	cmd := exec.Command(program, "-f", "-o", options+",auto_unmount", dir+"/m")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for !mounted(t, dir+"/m") {
		time.Sleep(5 * time.Millisecond)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it was not killed")
	}
	end := time.Now().Add(20 * time.Second)
	for mounted(t, dir+"/m") && time.Now().Before(end) {
		time.Sleep(5 * time.Millisecond)
	}
	if mounted(t, dir+"/m") {
		t.Error("still mounted")
	}
}

// TestKilledServer kills the server while it works: what had been answered is
// there at the next mount, lower files that were moved away stay away, and
// nothing staged is left.
func TestKilledServer(t *testing.T) {
	needsMount(t)
	t.Parallel()
	for _, files := range []string{"", "1"} {
		dir, options := layers(t)
		fusetest.Must(t, `cd "$1"; export FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT=$4
		for i in $(seq 400); do echo old > lower/f$i; done; last=0; echo 0 > done
		for round in 1 2 3 4; do
			"$2" -f -o "$3" m & pid=$!
			until grep -q " $1/m " /proc/mounts; do sleep 0.01; done
			for k in $(seq $last); do test ! -e m/f$k; test $k -gt $((last-3)) -o ! -e m/g$k; done
			for k in $(seq $((last > 1 ? last-1 : 1)) $last); do test "$(cat m/g$k)" = $k; done
			(i=$last; while [ $i -lt 400 ]; do
				i=$((i+1)); [ ! -e m/g$i ] || rm m/g$i || exit; echo $i > m/f$i || exit; mv m/f$i m/g$i || exit; rm -f m/g$((i-3)) || exit; echo $i > done.new; mv done.new done
			done) 2>/dev/null & work=$!
			until [ "$(cat done)" -ge $((last+12+round)) ]; do sleep 0.005; done
			kill -9 $pid; wait $pid 2>/dev/null || true; wait $work || true; umount -l m; last=$(cat done)
		done
		"$2" -o "$3" m; test "$(cat m/g$last)" = $last; test ! -e m/f$last; rm -f m/[fg]*; test -z "$(ls -A m)"; umount m
		test -z "$(find work/work -name '#*' ! -name '#whiteout')"; test "$(cat lower/f[1-9]* | sort -u)" = old`, dir, program, options, files)
	}
}

// TestMountHelper: mount(8) runs the program under its helper's name, as
// installed, in a mount namespace of its own.
func TestMountHelper(t *testing.T) {
	needsMount(t)
	t.Parallel()
	dir, options := layers(t)
	script := `set -e
	D=$1 options=$2 program=$3
	mount --make-rprivate /
	S=$(readlink -f /sbin)
	mkdir "$D/su" "$D/sw"
	mount -t overlay overlay -o "lowerdir=$S,upperdir=$D/su,workdir=$D/sw" "$S"
	ln -s "$program" "$S/mount.fuse.fuse-overlay"
	cd "$D"
	mount -t fuse.fuse-overlay -o "$options,nodev" union m
	grep "^union $D/m fuse.fuse-overlay .*nodev" /proc/mounts
	test "$(cat m/f)" = text
	echo new > m/g
	umount m
	test "$(cat upper/g)" = new
	if mount -t fuse.fuse-overlay -o "lowerdir=$D/none" union m; then exit 1; fi
	echo "union $D/m fuse.fuse-overlay $options,noauto,x-nothing=1 0 0" > "$D/fstab"
	mount --fstab "$D/fstab" m
	test "$(cat m/g)" = new
	umount m
	while ps -e -o args= | grep "^[^ ]*mount.fuse.fuse-overlay" | grep "$D" >/dev/null; do sleep 0.1; done # umount(8) does not wait for the server`
	out, err := exec.Command("unshare", "--mount", "/bin/bash", "-c", script, "script", dir, options, program).CombinedOutput()
	if err != nil || !strings.Contains(string(out), dir+"/none does not exist") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestAsUser: an ordinary user mounts with fusermount3, and is told what is
// missing.
func TestAsUser(t *testing.T) {
	needsMount(t)
	t.Parallel()
	const prepare = `cd "$HOME"; mkdir -p l u w m; echo text > l/f; o=lowerdir=l,upperdir=u,workdir=w; `
	r := fusetest.AsUser(t, fusetest.User{}, prepare+`set -e
		"$1" -o $o m; cat m/f; echo new > m/g; rm m/f; ls m; chmod 0700 m; fusermount3 -u m; ls u w/work
		unshare -Urm /bin/sh -ec '"$1" -o $2 m; ls m; stat -c %u:%g m/g; umount m' sh "$1" "$o"`, program)
	if r.Status != 0 || !strings.HasPrefix(r.Out, "text\ng\n") || !strings.HasSuffix(r.Out, "g\n0:0\n") {
		t.Errorf("%+v", r)
	}
	// Passthrough cannot be had, through fusermount3 or in a user namespace.
	r = fusetest.AsUser(t, fusetest.User{}, prepare+`set -e
		"$1" -o $o,passthrough m; echo x > m/g; cat m/g; fusermount3 -u m
		unshare -Urm /bin/sh -ec '"$1" -o $2,passthrough m; cat m/g; umount m' sh "$1" "$o"
		! "$1" -o $o,passthrough,strict m; ! mountpoint -q m
		unshare -Urm /bin/sh -ec '! "$1" -o $2,passthrough,strict m; ! mountpoint -q m; ls m' sh "$1" "$o"`, program)
	if r.Status != 0 || r.Out != "x\nx\n" || strings.Count(r.Err, "needs CAP_SYS_ADMIN of the machine") != 4 || strings.Count(r.Err, "\n") != 4 {
		t.Errorf("%+v", r)
	}
	for want, u := range map[string]fusetest.User{"fuse device not found": {NoDevice: true}, "fuse3": {NoHelper: true}} {
		r := fusetest.AsUser(t, u, prepare+`"$1" -o $o m`, program)
		if r.Status != 1 || !strings.Contains(r.Err, want) || strings.Count(r.Err, "fuse-overlay: ") != 1 {
			t.Errorf("%+v: %+v", u, r)
		}
	}
	r = fusetest.AsUser(t, fusetest.User{}, prepare+`"$1" -o $o,allow_other m`, program)
	if r.Status != 1 || !strings.Contains(r.Err, "user_allow_other") {
		t.Errorf("%+v", r)
	}
}

// TestOwners: what a mount shows, and what then is in the upper.
func TestOwners(t *testing.T) {
	needsMount(t)
	t.Parallel()
	for options, want := range map[string]string{
		// Shown of two lower files, after chown 1005:2005 of one; made by 1003:2003;
		// an ACL for 1004; an ID that is not mapped; the upper's owners and ACL.
		"uidmapping=0:1000:10,gidmapping=:0:2000:10": "1000:2000 1007:2007 / 1005:2005 1003:2003 1004 / EOVERFLOW / 5:5 3:3 4",
		"squash_to_root": "0:0 0:0 / 0:0 0:0 1004 / 0:0 / 9:9 1003:2003 1004",
		"squash_to_uid=7,squash_to_root,squash_to_gid=8": "7:8 7:8 / 7:8 7:8 1004 / 7:8 / 9:9 1003:2003 1004",
		"": "0:0 7:7 / 1005:2005 1003:2003 1004 / 9:9 / 9:9 1003:2003 1004",
	} {
		dir, base := layers(t)
		o := base
		if options != "" {
			o += "," + options
		}
		got := fusetest.Must(t, `cd "$1"
		touch lower/seven; chown 7:7 lower/seven; chmod 0777 lower upper
		"$2" -o "$3" m
		printf '%s ' $(stat -c %u:%g m/f m/seven) /
		chown 1005:2005 m/f
		setpriv --reuid 1003 --regid 2003 --clear-groups sh -c ': > m/new'
		setfacl -m u:1004:r m/new
		printf '%s ' $(stat -c %u:%g m/f m/new) $(getfacl -cn m/new | sed -n 's/^user:\([0-9]*\):.*/\1/p') /
		if chown 9:9 m/f 2>err; then stat -c %u:%g m/f; else grep -q 'Value too large' err && echo EOVERFLOW; fi | tr '\n' ' '
		umount m
		printf '%s' "/ $(stat -c %u:%g upper/f) $(stat -c %u:%g upper/new) $(getfacl -cn upper/new | sed -n 's/^user:\([0-9]*\):.*/\1/p' | tr -d '\n')"`, dir, program, o)
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", options, got, want)
		}
	}
}

// TestShownOtherwise: options that change what the mount looks like.
func TestShownOtherwise(t *testing.T) {
	needsMount(t)
	t.Parallel()
	for options, script := range map[string]string{
		"static_nlink":               `mkdir -p m/d/a m/d/b; test "$(stat -c %h m/d)" = 1`,
		"noacl":                      `! setfacl -m u:5:r m/f; setfattr -n user.a -v b m/f`,
		"noxattrs":                   `! setfattr -n user.a -v b m/f`,
		"ino32_t":                    `for i in $(stat -c %i m/f m) $(ls -i m | cut -d' ' -f1); do test $i -lt 4294967296; done; test "$(ls -i m/f | cut -d' ' -f1)" = "$(stat -c %i m/f)"`,
		"threaded=0":                 `for i in 1 2 3; do (echo $i > m/$i; cat m/f m/$i) & done > /dev/null; wait; cat m/1 m/2 m/3`,
		"timeout=0":                  `cat m/f; echo x > m/f; cat m/f; rm m/f; ls m`,
		"max_write=4096":             `head -c 100000 /dev/zero > m/z; test $(stat -c %s upper/z) = 100000`,
		"volatile,fsync=0":           `echo x > m/x; sync m/x`,
		"userxattr":                  `rm m/f; mkdir m/d`,
		"context=\"a:b:c:s0:c1,c2\"": `cat m/f`,
		"fsname=mine":                `grep "^mine $PWD/m fuse.fuse-overlay" /proc/mounts`,
		"noexec,nosuid,nodev":        `grep "$PWD/m fuse.fuse-overlay .*nosuid,nodev,noexec" /proc/mounts`,
	} {
		dir, base := layers(t)
		fusetest.Must(t, `cd "$1"; trap 'umount m' EXIT; out=$("$2" -o "$3" m 2>&1); test -z "$out" || { echo "$out"; exit 1; }
		`+script, dir, program, base+","+options)
	}
}

// TestFileWhiteouts: with the variable set, deletions are `+"`.wh.`"+` files.
func TestFileWhiteouts(t *testing.T) {
	needsMount(t)
	t.Parallel()
	dir, options := layers(t)
	got := fusetest.Must(t, `cd "$1"; mkdir -p lower/d; echo x > lower/d/x
	FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT=1 "$2" -o "$3" m
	rm m/f; rm -r m/d; mkdir m/d; ls m m/d; umount m; find upper -type c; find upper -name '.wh*' | sort
	"$2" -o "$3" m; ls m m/d; umount m`, dir, program, options)
	if !strings.Contains(got, "upper/.wh.f\n") || strings.Count(got, "m/d:\n") != 2 || strings.Contains(got, "x\n") {
		t.Errorf("%s", got)
	}
}

// TestBounds: size= and inodes= hold for every way to write, are given back,
// counted again at the next mount, and shown by statfs.
func TestBounds(t *testing.T) {
	needsMount(t)
	t.Parallel()
	dir, options := layers(t)
	fusetest.Must(t, `cd "$1"
	head -c 3000000 /dev/urandom > lower/big; mkdir -p lower/d/e
	"$2" -o "$3,size=8M,inodes=20" m
	full() { if "$@" 2>err; then echo "$*: has room"; exit 1; fi; grep -q 'quota exceeded' err || { cat err; exit 1; }; }
	head -c 4000000 /dev/zero > m/a
	test "$(stat -fc '%b %S' m | { read b s; echo $((b*s)); })" = 8388608
	free=$(stat -fc '%a %S' m | { read b s; echo $((b*s)); }); test $free -gt 4000000; test $free -lt 4400000
	full dd if=/dev/zero of=m/b bs=1M count=5; rm m/b
	full fallocate -l 5M m/c; rm m/c
	dd if=/dev/zero of=m/a bs=1M count=3 conv=notrunc 2>/dev/null   # overwrites
	chmod 600 m/big                                                # a copy-up has room
	rm m/a; head -c 4000000 /dev/zero > m/a
	full sh -c 'head -c 2000000 /dev/zero > m/x 2>err || { cat err >&2; exit 1; }'; rm -f m/x
	truncate -s 0 m/a; head -c 4000000 /dev/zero > m/a
	umount m; "$2" -o "$3,size=8M,inodes=20" m
	full dd if=/dev/zero of=m/b bs=1M count=5; rm m/b m/a
	truncate -s 100M m/sparse; rm m/sparse
	for i in $(seq 17); do : > m/d/e/$i || break; done 2>err; n=$(ls m/d/e | wc -l); test $n -ge 14 -a $n -le 16; grep -q 'quota exceeded' err
	test "$(stat -fc %c m)" = 20; test "$(stat -fc %d m)" -lt 3
	full mkdir m/dir; full ln -s x m/link; full mknod m/p p
	rm m/d/e/1 m/d/e/2; mkdir m/dir; ln -s x m/link; rm -r m/dir m/link; ln m/d/e/3 m/d/e/other
	umount m; "$2" -o "$3" m; head -c 9000000 /dev/zero > m/more; umount m`, dir, program, options)
}

// TestStats: SIGUSR1 writes the numbers, and so does the end of the mount.
func TestStats(t *testing.T) {
	needsMount(t)
	t.Parallel()
	dir, options := layers(t)
	fusetest.Must(t, `cd "$1"
	"$2" -f -o "$3,size=1M,stats=numbers" m & pid=$!
	until grep -q " $1/m " /proc/mounts; do sleep 0.01; done
	chmod 600 m/f; head -c 10000 /dev/zero > m/g
	kill -USR1 $pid; until [ -e numbers ]; do sleep 0.01; done
	grep -x 'copied_up 1' numbers; grep -x 'degraded no' numbers; grep 'upper_bytes [1-9][0-9]* 1048576' numbers; grep 'nodes [3-9]' numbers
	rm numbers; umount m; wait $pid; grep -x 'degraded no' numbers`, dir, program, options)
}

// TestDiary: a mount in the background says why it turned read-only in its work
// directory, and numbers there too, in no more than its bound; what is in the
// way there is not followed.
func TestDiary(t *testing.T) {
	needsMount(t)
	t.Parallel()
	dir, options := layers(t)
	fusetest.Must(t, `cd "$1"; export FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT=1
	"$2" -o "$3" m
	test ! -e work/fuse-overlay.log
	stat m/f; mkdir upper/.wh.f # where the mark is to be
	mv m/f m/moved
	! touch m/new 2>err; grep -q 'Read-only file system' err; test "$(cat m/moved)" = text
	grep -E '^20[0-9-]+T[0-9:]+Z fuse-overlay: error: the overlay turns read-only: "f" was moved' work/fuse-overlay.log
	test "$(stat -c %a work/fuse-overlay.log)" = 600
	head -c 65500 /dev/zero >> work/fuse-overlay.log
	pid=$(pgrep -f "^$2 -o lowerdir=$1/.* m\$"); kill -USR1 $pid
	until grep -q '^degraded "f" was moved' work/fuse-overlay.log; do sleep 0.01; done
	test "$(stat -c %s work/fuse-overlay.log)" -lt 2000; grep -aq 'turns read-only' work/fuse-overlay.log.old
	umount m; rmdir upper/.wh.f; rm work/fuse-overlay.log
	ln -s "$1/elsewhere" work/fuse-overlay.log
	"$2" -o "$3" m; pid=$(pgrep -f "^$2 -o lowerdir=$1/.* m\$"); kill -USR1 $pid
	touch m/new; umount m; test ! -e elsewhere`, dir, program, options)
}

// TestManualPageIsCurrent: docs/man holds what the program says now.
func TestManualPageIsCurrent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.Command("go", "run", "-tags", "docs", ".", "docs", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want, err := os.ReadFile(dir + "/fuse-overlay.1")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile("../../docs/man/fuse-overlay.1"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/man/fuse-overlay.1 is not what the program says (%v): run make docs", err)
	}
}
