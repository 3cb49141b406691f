package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// busy works on a mount, before and while programs want all processors, alone
// and four at once; $1 is the program, $2 more options.
const busy = `set -e
mkdir -p l u w m; o=lowerdir=l,upperdir=u,workdir=w,stats=$PWD/stats$2
for d in $(seq 12); do mkdir l/$d; for f in $(seq 30); do echo $d $f > l/$d/$f; done; done
"$1" -o $o m
find m -ls > /dev/null; cp -a l m/first; diff -r l m/first
hogs=
for i in $(seq $((2 * $(nproc)))); do ( while :; do :; done ) & hogs="$hogs $!"; done
trap 'kill $hogs' EXIT
cp -a l m/second; diff -r l m/second; chmod -R go-r m/1; rm -r m/2
for p in a b c d; do ( cp -a l/3 m/$p; mv m/$p m/moved-$p; for f in m/moved-$p/*; do echo more >> $f; done; rm m/moved-$p/30 ) & pids="$pids $!"; done
for p in $pids; do wait $p; done
for p in a b c d; do test $(cat m/moved-$p/* | grep -c more) = 29; test $(cat m/moved-$p/* | wc -l) = 58; done
dd if=/dev/zero of=m/big bs=1M count=8 status=none conv=fsync; test $(stat -c %s m/big) = 8388608
test $(ls m/second/4 | wc -l) = 30; test ! -e m/2
kill $hogs; trap - EXIT
umount m 2>/dev/null || fusermount3 -u m
for i in $(seq 600); do ! grep -q ^degraded stats 2>/dev/null || break; sleep 0.1; done
sort stats | grep 'dialogues\|degraded'`

// TestBusyMachine: programs that want all processors change nothing of what a
// mount does, whatever the server may do about its own priority.
func TestBusyMachine(t *testing.T) {
	needsMount(t)
	t.Parallel()
	check := func(t *testing.T, r fusetest.Result) {
		t.Helper()
		if r.Status != 0 || r.Err != "" || !strings.HasPrefix(r.Out, "degraded no\n") {
			t.Errorf("%+v", r)
		}
		t.Log(r.Out)
	}
	dir := func(t *testing.T) string { return t.TempDir() }
	t.Run("root", func(t *testing.T) {
		t.Parallel()
		check(t, fusetest.Script(t, "cd $3\n"+busy, program, "", dir(t)))
	})
	t.Run("passthrough", func(t *testing.T) {
		t.Parallel()
		check(t, fusetest.Script(t, "cd $3\n"+busy, program, ",passthrough", dir(t)))
	})
	// A server that may not leave SCHED_IDLE, and that shares a session with who
	// wants the processors.
	t.Run("foreground", func(t *testing.T) {
		t.Parallel()
		script := strings.Replace(busy, `"$1" -o $o m`, `setpriv --bounding-set=-sys_nice "$1" -f -o $o m & until mountpoint -q m; do sleep 0.1; done`, 1)
		check(t, fusetest.Script(t, "cd $3\n"+script, program, "", dir(t)))
	})
	t.Run("user", func(t *testing.T) {
		t.Parallel()
		check(t, fusetest.AsUser(t, fusetest.User{}, `cd "$HOME"`+"\n"+busy, program, ""))
	})
	t.Run("go-fuse", func(t *testing.T) {
		t.Parallel()
		check(t, fusetest.Script(t, "cd $3\n"+busy, program, ",transport=go-fuse", dir(t)))
	})
}

// TestFewDescriptors: programs have more files open, and mapped, than the server
// may have.
//
// https://github.com/containers/fuse-overlayfs/issues/378
// https://github.com/containers/fuse-overlayfs/issues/210
func TestFewDescriptors(t *testing.T) {
	needsMount(t)
	t.Parallel()
	const files, most = 320, "256"
	for _, options := range []string{",volatile", ",volatile,passthrough"} {
		dir, base := layers(t)
		for i := range files {
			if err := os.WriteFile(fmt.Sprintf("%s/lower/%d", dir, i), fmt.Appendf(nil, "%5d", i), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		fusetest.Must(t, `ulimit -n $1; "$2" -o "$3" "$4/m"`, most, program, base+options, dir)
		var open []*os.File
		var maps [][]byte
		for i := range files {
			f, err := os.OpenFile(fmt.Sprintf("%s/m/%d", dir, i), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, f)
			b, err := unix.Mmap(int(f.Fd()), 0, 5, unix.PROT_READ, unix.MAP_SHARED)
			if err != nil {
				t.Fatal(err)
			}
			maps = append(maps, b)
		}
		for i, f := range open {
			if want := fmt.Sprintf("%5d", i); string(maps[i]) != want {
				t.Errorf("%s: %q, want %q", options, maps[i], want)
			}
			if _, err := f.WriteAt([]byte("+"), 0); err != nil {
				t.Errorf("%s: %v", options, err)
			}
		}
		for i, f := range open {
			b, err := os.ReadFile(f.Name())
			if want := "+" + fmt.Sprintf("%5d", i)[1:]; err != nil || string(b) != want || string(maps[i]) != want {
				t.Errorf("%s: %q, %v, mapped %q; want %q", options, b, err, maps[i], want)
			}
			if err := errors.Join(unix.Munmap(maps[i]), f.Close()); err != nil {
				t.Error(err)
			}
		}
		for range files {
			if err := errors.Join(os.Mkdir(dir+"/m/new", 0o755), os.Remove(dir+"/m/new")); err != nil {
				t.Fatal(err)
			}
		}
		fusetest.Must(t, `umount "$1/m"`, dir)
	}
}
