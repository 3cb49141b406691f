package fuseoverlay

import (
	"path/filepath"
	"testing"

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
	t.Cleanup(func() { check(t, unix.Unmount(covered, 0)) })
	t.Cleanup(func() { check(t, unix.Unmount(filepath.Join(l, "file"), 0)) })
	const script = `find . -printf '%p %y %m\n' | sort; cat sub/* file; echo more >> sub/f; rm sub/h; touch mnt/x; rmdir top/t; mv sub dir; find . | sort; cat dir/*`
	want := r.throughKernel("redirect_dir=on", script)
	fusetest.Must(t, "cd $1; rm -rf u w; umask 022; mkdir u w", r.dir)
	r.start()
	if got := r.do(script); got != want {
		t.Error(difference(t, want, got))
	}
	// A mount that comes later does not come into the layer either.
	late := filepath.Join(l, "top")
	fusetest.Must(t, "mount -t tmpfs x $1; touch $1/late", late)
	t.Cleanup(func() { check(t, unix.Unmount(late, 0)) })
	if got := r.do("ls top"); got != "" {
		t.Errorf("a later mount is seen: %q", got)
	}
}

// TestMountsInsideUncloned: where a layer's mount cannot be cloned, directories
// that others are mounted on are empty ones.
func TestMountsInsideUncloned(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "mkdir sub")
	l := r.lowers[0]
	covered := filepath.Join(l, "sub")
	fusetest.Must(t, `mount -t tmpfs x $1; mount --make-unbindable $1; mkdir $1/sub $1/mnt; echo x > $1/f; echo below > $1/sub/g
		mount -t tmpfs x $1/sub; mkdir $1/sub/d; echo y > $1/sub/d/f`, l)
	t.Cleanup(func() { check(t, unix.Unmount(l, 0)) })
	t.Cleanup(func() { check(t, unix.Unmount(covered, 0)) })
	r.mount = filepath.Join(l, "mnt")
	r.start()
	const list = "find . | sort; cat sub/* 2>/dev/null || true"
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
