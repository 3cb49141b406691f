package fuseoverlay

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// xattrOf returns an attribute of a file of the upper, "-" when it has none.
func (r *rig) xattrOf(path, attr string) string {
	r.t.Helper()
	b := make([]byte, 1000)
	n, err := unix.Lgetxattr(filepath.Join(r.config.Upper, path), attr, b)
	if err != nil {
		return "-"
	}
	return string(b[:n])
}

// throughKernel mounts the kernel's overlay over what the rig left, and runs a
// script there.
func (r *rig) throughKernel(options, script string) string {
	r.t.Helper()
	return fusetest.Must(r.t, fmt.Sprintf(`mount -t overlay -o lowerdir=%s,upperdir=%s,workdir=%s,%s overlay $1
cd $1; (%s); e=$?; cd /; umount $1; exit $e`, strings.Join(r.lowers, ":"), r.config.Upper, r.config.Work, options, script), r.mount)
}

const listTree = `find . -type d -printf '%p/\n' -o -printf '%p ' -exec cat {} \; | sort`

// TestRedirects: after the same renames the upper holds the redirects that the
// kernel writes, nothing below was copied, and each reads the other's.
func TestRedirects(t *testing.T) {
	t.Parallel()
	const lower = `mkdir -p a/b/c e; echo 1 > a/b/c/f; echo 2 > a/g; echo 3 > e/h; mkdir x`
	const moves = `mv a A; mv A/b A/B; mv A/B/c e/C; mv e E; rm A/g; mkdir e; mv A A2; mv A2 x/A; echo new > x/A/B/n; mv x X`
	r := newRig(t, lower)
	r.config.Redirects = true
	r.start()
	r.do(moves)
	want := r.do(listTree)
	r.stop()
	k := newRig(t, lower)
	if got := k.throughKernel("redirect_dir=on,index=on", moves+"; "+listTree); got != want {
		t.Errorf("the kernel, by itself:\n%swant\n%s", got, want)
	}
	for path, redirect := range map[string]string{"X": "x", "X/A": "/a", "X/A/B": "b", "E": "e", "E/C": "/a/b/c"} {
		ours, kernels := r.xattrOf(path, "trusted.overlay.redirect"), k.xattrOf(path, "trusted.overlay.redirect")
		if ours != redirect || kernels != redirect {
			t.Errorf("redirect of %s: %s; the kernel's %s, want %s", path, ours, kernels, redirect)
		}
	}
	for _, path := range []string{"E/h", "E/C/f"} {
		if _, err := os.Lstat(filepath.Join(r.config.Upper, path)); err == nil {
			t.Errorf("%s was copied up", path)
		}
	}
	if got := r.throughKernel("redirect_dir=on,index=on", listTree); got != want {
		t.Errorf("the kernel, over ours:\n%swant\n%s", got, want)
	}
	for _, x := range []*rig{r, k} {
		x.start()
		if got := x.do(listTree); got != want {
			t.Errorf("ours, after a remount:\n%swant\n%s", got, want)
		}
		x.stop()
	}
}

// TestRedirectTooLong: over the kernel's bound the directory is copied, as
// without redirects.
func TestRedirectTooLong(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 200)
	r := newRig(t, fmt.Sprintf("mkdir -p %[1]s/%[1]s; echo x > %[1]s/%[1]s/f", long))
	r.config.Redirects = true
	r.start()
	r.do(fmt.Sprintf("mv %[1]s/%[1]s moved; test -e moved/f", long))
	if got := r.xattrOf("moved", "trusted.overlay.redirect"); got != "-" {
		t.Errorf("redirect %s", got)
	}
	if got := r.xattrOf("moved", "trusted.overlay.opaque"); got != "y" {
		t.Errorf("opaque %s", got)
	}
}

// TestRedirectCopiedUp: where none are written, a directory into which an
// earlier mount's redirect leads is copied up whole with the one above it; what
// was removed there does not come back.
func TestRedirectCopiedUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, `mkdir -p a/b d; echo 1 > a/b/f; echo 2 > a/b/g; echo 3 > d/x`)
	r.throughKernel("redirect_dir=on", "mv a/b d/b; rm d/b/f")
	r.start()
	r.do("mv d D")
	want := r.do(listTree)
	if strings.Contains(want, "/f") {
		t.Errorf("a removed file is back:\n%s", want)
	}
	r.stop()
	if got := r.throughKernel("redirect_dir=on", listTree); got != want {
		t.Errorf("the kernel shows\n%swant\n%s", got, want)
	}
	r.start()
	if got := r.do(listTree); got != want {
		t.Errorf("after a remount\n%swant\n%s", got, want)
	}
}

// TestMetacopy: a change of attributes copies no data, a write all of it, and
// the kernel sees the same.
func TestMetacopy(t *testing.T) {
	t.Parallel()
	r := newRig(t, `for f in mode owner time attr written cut moved linked removed; do head -c 100000 /dev/urandom > $f; done; : > empty
		echo pair > p1; ln p1 p2`)
	r.config.Metacopy = true
	r.start()
	r.do(`chmod 600 mode written cut moved linked removed empty p1; chown 5:6 owner; touch -d @1000000000 time; setfattr -n user.x -v y attr
		exec 3< removed; rm removed; test $(wc -c <&3) = 100000`)
	for f, want := range map[string]bool{"mode": true, "owner": true, "time": true, "attr": true, "empty": false, "p1": false} {
		st := statOf(t, filepath.Join(r.config.Upper, f))
		if got := r.xattrOf(f, "trusted.overlay.metacopy") == ""; got != want || want && (st.Blocks > 8 || st.Size != 100000) {
			t.Errorf("%s: metadata only: %v, %d blocks, size %d", f, got, st.Blocks, st.Size)
		}
	}
	r.do(`printf x | dd of=written conv=notrunc status=none; truncate -s 50 cut; mv moved Moved; ln linked Linked; sync -d mode`)
	for _, f := range []string{"written", "cut", "Moved", "Linked"} {
		if got := r.xattrOf(f, "trusted.overlay.metacopy"); got != "-" {
			t.Errorf("%s has no data", f)
		}
	}
	const show = `find . -type f -printf '%p %m %U:%G %s %n ' -exec md5sum {} \; | sort`
	want := r.do(show)
	if again := r.do(show); again != want { // of descriptors that are open now
		t.Errorf("got\n%swant\n%s", again, want)
	}
	r.stop()
	if got := r.throughKernel("metacopy=on,redirect_dir=on,index=on", show); got != want {
		t.Errorf("the kernel shows\n%swant\n%s", got, want)
	}
	r.start()
	if got := r.do(show); got != want {
		t.Errorf("after a remount\n%swant\n%s", got, want)
	}
}

// TestMetacopyOfKernel: what an earlier mount of the kernel's copied without
// data has its data and its own attributes, by each of its names.
func TestMetacopyOfKernel(t *testing.T) {
	t.Parallel()
	r := newRig(t, `head -c 5000 /dev/urandom > f; mkdir a b; head -c 5000 /dev/urandom > a/p; ln a/p b/q; touch -d @1000000000 f a/p`)
	const show = `for f in f a/p b/q; do stat -c '%n %a %s %h %Y' $f; md5sum < $f; stat -c '%a' $f; done`
	want := r.throughKernel("metacopy=on,redirect_dir=on,index=on", "chmod 640 f; chmod 604 a/p; "+show)
	r.start()
	for range 2 {
		if got := r.do(show + "; touch -a f"); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	}
	r.stop()
	r.start()
	if got := r.do(`md5sum < b/q; echo x >> b/q; stat -c %a a/p; tail -c 2 a/p`); !strings.HasSuffix(got, "604\nx\n") {
		t.Errorf("got %s", got)
	}
}

// TestAllowRoot: root and the mounting user are let in, others not, whatever
// was looked at before.
func TestAllowRoot(t *testing.T) {
	t.Parallel()
	r := newRig(t, "echo text > f; mkdir d; echo more > d/g; chmod 777 d")
	check(t, os.Chmod(r.dir, 0o755))
	check(t, os.Chmod(filepath.Dir(r.dir), 0o755))
	r.config.AllowRoot = true
	r.start()
	r.do("cat f d/g")
	out := fusetest.Script(t, `cd $1 && cat f d/g && setpriv --reuid 1000 --regid 1000 --clear-groups sh -c '
cat $1/f; cat f; cat d/g; ls $1; stat $1; stat -f $1; getfattr -d $1; touch $1/d/n' sh $1; cat f`, r.mount)
	if out.Out != "text\nmore\ntext\n" || strings.Count(out.Err, "Permission denied") < 7 {
		t.Errorf("%+v", out)
	}
}
