package main

import (
	"strings"
	"testing"

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
