package fuseoverlay

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestMountsInside: what is mounted inside a lower layer, the overlay itself too,
// is not seen, as on the kernel's overlay.
func TestMountsInside(t *testing.T) {
	t.Parallel()
	r := newRig(t, "mkdir mnt sub top; chmod 705 sub; echo below > sub/f; echo 1 > sub/g; echo a > file; touch inside", "mkdir -p sub top/t; echo 2 > sub/h")
	l := r.lowers[0]
	r.mount = filepath.Join(l, "mnt")
	covered := filepath.Join(l, "sub")
	fusetest.Must(t, "mount -t tmpfs x $1; echo above > $1/f; echo b > $2/inside; mount --bind $2/inside $2/file", covered, l)
	t.Cleanup(func() { check(t, unix.Unmount(covered, unix.MNT_DETACH)) })
	t.Cleanup(func() { check(t, unix.Unmount(filepath.Join(l, "file"), unix.MNT_DETACH)) })
	const script = `find . -printf '%p %y %m\n' | sort; cat sub/* file; echo more >> sub/f; rm sub/h; touch mnt/x; rmdir top/t; mv sub dir; find . | sort; cat dir/*`
	want := r.throughKernel("redirect_dir=on", script)
	fusetest.Must(t, "cd $1; rm -rf u w; umask 022; mkdir u w", r.dir)
	r.start()
	if got := r.do(script); got != want {
		t.Error(difference(t, want, got))
	}
	r.stop()
	r.config.SingleThread = true // whoever comes upon its own mount waits for itself
	fusetest.Must(t, "cd $1; rm -rf u w; umask 022; mkdir u w", r.dir)
	r.start()
	if got := r.do(script); got != want {
		t.Error(difference(t, want, got))
	}
	// A mount that comes later does not come into the layer either.
	late := filepath.Join(l, "top")
	fusetest.Must(t, "mount -t tmpfs x $1; touch $1/late", late)
	t.Cleanup(func() { check(t, unix.Unmount(late, unix.MNT_DETACH)) })
	if got := r.do("ls top"); got != "" {
		t.Errorf("a later mount is seen: %q", got)
	}
}

// TestMountsInsideUpper: nor is what is mounted inside the upper, and it is not
// written to.
func TestMountsInsideUpper(t *testing.T) {
	t.Parallel()
	r := newRig(t, "mkdir sub low; echo low > sub/low; echo l > low/f")
	u := r.config.Upper
	r.mount = filepath.Join(u, "mnt")
	covered, file := filepath.Join(u, "sub"), filepath.Join(u, "file")
	other := filepath.Join(r.dir, "other")
	fusetest.Must(t, `mkdir $1 $1/d; echo above > $1/f; echo b > $1/inside; mknod $1/d/hidden c 0 0`, other)
	prepare := func() {
		fusetest.Must(t, `cd $1; umask 022; rm -rf u w; mkdir u w u/mnt u/sub; echo below > u/sub/f; echo a > u/file
			mount --bind other u/sub; mount --bind other/inside u/file`, r.dir)
	}
	uncover := func() {
		check(t, unix.Unmount(covered, 0))
		check(t, unix.Unmount(file, 0))
	}
	const script = `find . -printf '%p %y %m\n' | sort; cat sub/* file; echo more >> sub/f; rm sub/low; echo new > sub/new; touch mnt/x; mv low lower; ! mv sub dir 2>&1; ! rm file 2>&1; find . | sort; cat sub/* file; echo c > file; cat file`
	prepare()
	want := r.throughKernel("redirect_dir=on", script)
	uncover()
	prepare()
	t.Cleanup(uncover)
	r.start()
	if got := r.do(script); got != want {
		t.Error(difference(t, want, got))
	}
	if got := fusetest.Must(t, "cd $1; find . | sort; cat f inside", other); got != ".\n./d\n./d/hidden\n./f\n./inside\nabove\nb\n" {
		t.Errorf("what is mounted there was written to: %s", got)
	}
}

// TestMountsInsideUpperUncloned: where the upper's mount cannot be cloned, what
// others are mounted on is refused, and what is mounted there is left alone.
func TestMountsInsideUpperUncloned(t *testing.T) {
	t.Parallel()
	r := newRig(t, "mkdir top; echo low > top/low")
	r.config.MaxBytes = 1 << 30
	at := filepath.Join(r.dir, "at")
	r.config.Upper, r.config.Work = at+"/u", at+"/w"
	fusetest.Must(t, `mkdir $1 && cd $1 && mount -t tmpfs x $1 && mount --make-unbindable $1; mkdir -p $1/u/top/sub $1/w $1/other/d; touch $1/u/top/file
		mount -t tmpfs x $1/u/top/sub; cd $1/u/top/sub; mkdir d; mknod d/hidden c 0 0; dd if=/dev/zero of=big bs=1M count=4 status=none; mount --bind big ../file`, at)
	t.Cleanup(func() { check(t, unix.Unmount(at, unix.MNT_DETACH)) })
	r.start()
	r.do(`for f in top/sub top/file; do ! ls $f 2>$2/err; grep -q 'busy' $2/err; done; [ "$(ls top | tr '\n' ' ')" = "file low sub " ]; echo new > top/new; rm top/low; ! mv top moved`)
	if bytes, _ := r.server.o.quota.holds(); bytes >= 1<<20 {
		t.Errorf("%d bytes are counted", bytes)
	}
	r.stop()
	fusetest.Must(t, `cd $1/u/top; test -c sub/d/hidden; umount file; umount sub`, at)
}

// TestMountsInsideUncloned: where a layer's mount cannot be cloned, directories
// that others are mounted on are empty ones, and files refused.
func TestMountsInsideUncloned(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "mkdir sub")
	l := r.lowers[0]
	covered := filepath.Join(l, "sub")
	fusetest.Must(t, `mount -t tmpfs x $1; mount --make-unbindable $1; mkdir $1/sub $1/mnt; echo x > $1/f; echo below > $1/sub/g
		mount -t tmpfs x $1/sub; mkdir $1/sub/d; echo y > $1/sub/d/f; touch $1/file; mount --bind $1/sub/d/f $1/file`, l)
	t.Cleanup(func() { check(t, unix.Unmount(l, unix.MNT_DETACH)) })
	t.Cleanup(func() { check(t, unix.Unmount(covered, unix.MNT_DETACH)) })
	t.Cleanup(func() { check(t, unix.Unmount(filepath.Join(l, "file"), unix.MNT_DETACH)) })
	r.mount = filepath.Join(l, "mnt")
	r.start()
	r.do(`! cat file 2>$2/err; grep -q 'busy' $2/err`)
	const list = "find . ! -name file | sort; cat sub/* 2>/dev/null || true"
	if got, want := r.do(list), ".\n./f\n./mnt\n./sub\n"; got != want {
		t.Errorf("%q, not %q", got, want)
	}
	r.do("! ls mnt/mnt 2>/dev/null; echo new > sub/f; touch mnt/x")
	if got, want := r.do(list), ".\n./f\n./mnt\n./mnt/x\n./sub\n./sub/f\nnew\n"; got != want {
		t.Errorf("after a change %q, not %q", got, want)
	}
	r.stop()
	r.start()
	if got, want := r.do(list), ".\n./f\n./mnt\n./mnt/x\n./sub\n./sub/f\nnew\n"; got != want {
		t.Errorf("after a remount %q, not %q", got, want)
	}
}

// TestOwnMountUncloned: where mounts cannot be cloned the overlay may lie inside one
// of its layers as well. One thread answers, so whatever asked the own mount for
// anything would wait for itself.
func TestOwnMountUncloned(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, mount, script string }{
		{"lower", "l/top/mnt", `echo new > top/mnt/x; chmod 700 top; mv top/mnt/x top/y; [ "$(find . -printf '%p %y\n' | sort | tr '\n' ' ')" = ". d ./pure d ./top d ./top/f f ./top/mnt d ./top/y f " ]`},
		{"lower-root", "l/mnt", `[ "$(ls -la mnt | wc -l)" = 3 ]; mkdir -p mnt/a; touch mnt/a/x; rm -r mnt; ! ls mnt 2>/dev/null`},
		{"upper", "u/top/mnt", `! ls -la top/mnt 2>$2/err; grep -q busy $2/err; ! mv top/mnt top/m 2>/dev/null; ! rmdir top/mnt 2>/dev/null; ! mkdir top/mnt 2>/dev/null; mv top/f top/g`},
		{"upper-pure", "u/pure/mnt", `! ls -la pure/mnt 2>$2/err; grep -q busy $2/err; ! mv pure/mnt pure/m 2>/dev/null; ! mkdir pure/mnt 2>/dev/null; mv pure moved; ! stat moved/mnt 2>/dev/null; touch moved/x; mv moved pure`},
	} {
		for _, aside := range []Aside{AsideNone, AsideUser} {
			t.Run(fmt.Sprint(c.name, aside), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				at := filepath.Join(r.dir, "at")
				fusetest.Must(t, `mkdir $1 && mount -t tmpfs x $1 && mount --make-unbindable $1; cd $1; umask 022; mkdir -p u/pure l/top w; echo f > l/top/f; mkdir -p $2`, at, c.mount)
				t.Cleanup(func() { check(t, unix.Unmount(at, unix.MNT_DETACH)) })
				r.config.Lower, r.config.Upper, r.config.Work = []string{at + "/l"}, at+"/u", at+"/w"
				r.config.SingleThread, r.config.MaxBytes, r.config.Aside = true, 1<<30, aside
				r.mount = filepath.Join(at, c.mount)
				r.start()
				// Who waits for himself cannot be killed: the mount is given up then, and the test fails.
				gaveUp := time.AfterFunc(2*time.Minute, func() { _ = unix.Unmount(r.mount, unix.MNT_FORCE) })
				defer gaveUp.Stop()
				r.do("ls -laR . >/dev/null 2>&1 || true; mv top/f f; mv f top/f")
				r.do(c.script)
			})
		}
	}
}
