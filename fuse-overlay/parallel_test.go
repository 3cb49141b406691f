package fuseoverlay

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// Several programs at work in one tree at once: nothing hangs, what is left is
// the same for whoever looks, after a remount and through the kernel.
func TestParallel(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dur := 3 * time.Second
	if os.Getenv("PLYFS_LONG") != "" {
		dur = 2 * time.Minute
	}
	r := newRig(t, "mkdir -p a/b c; echo l > a/l; echo m > c/m", `
		mkdir -p a/b a/c b/d c/a d; for d in a a/b a/c b b/d c d; do for n in b c d; do [ -e $d/$n ] || seq 2000 > $d/$n; done; done
		ln a/c/b d/a; ln -s b a/a`)
	r.config.Volatile = true
	r.start()
	drivers := []*driver{startDriver(t), startDriver(t), startDriver(t)}
	var wg sync.WaitGroup
	end := time.Now().Add(dur)
	gen := rapid.Custom(func(t *rapid.T) []op {
		// A mapping of a file that another one cuts is SIGBUS.
		return slices.DeleteFunc(drawOps(t, 20, 60), func(o op) bool { return o.Do == "mmap" })
	})
	for i, d := range drivers {
		wg.Go(func() {
			for seed := i; time.Now().Before(end); seed += len(drivers) {
				d.ask(t, batchOf{Root: r.mount, Ops: gen.Example(seed), Done: seed%4 == 0})
			}
			d.ask(t, batchOf{Root: r.mount, Done: true})
		})
	}
	wg.Wait()
	// A name that two threads moved at once may be cached wrongly nowhere: the
	// walk looks everything up.
	before := drivers[0].ask(t, batchOf{Root: r.mount, List: true})
	for _, s := range before.Trouble {
		t.Error(s)
	}
	r.stop()
	r.start()
	after := drivers[0].ask(t, batchOf{Root: r.mount, List: true})
	if diff := unequal(before.Tree, after.Tree); len(diff) > 0 {
		t.Errorf("after a remount:\n%s", strings.Join(diff, "\n"))
	}
	r.stop()
	fusetest.Must(t, `mount -t overlay o -o index=on,lowerdir=$2,upperdir=$1/u,workdir=$1/w $1/m`, r.dir, strings.Join(r.lowers, ":"))
	kernel := drivers[0].ask(t, batchOf{Root: r.mount, List: true})
	fusetest.Must(t, "umount $1", r.mount)
	if diff := unequal(before.Tree, kernel.Tree); len(diff) > 0 {
		t.Errorf("through the kernel:\n%s", strings.Join(diff, "\n"))
	}
	left, err := os.ReadDir(filepath.Join(r.dir, "w", "work"))
	check(t, err)
	for _, e := range left {
		if e.Name() != sharedWh {
			t.Errorf("%s stays in the work directory", e.Name())
		}
	}
}

// What a killed mount left staged is swept by the next one; what it had made is
// there.
func TestKilledMountIsContinued(t *testing.T) {
	t.Parallel()
	r := newRig(t, "mkdir d; echo x > d/x; echo y > y").start()
	r.do(`echo new > new; rm y; mkdir $2/w/work/'#dead'; echo > $2/w/work/'#dead'/f; mknod $2/w/work/'#1' c 0 0`)
	r.stop()
	r.start()
	if got := r.do("ls; ls $2/w/work | grep -v holder || true"); got != "d\nnew\n" && got != "d\nnew\n#whiteout\n" {
		t.Errorf("%q", got)
	}
}

// Ours goes on where the kernel's overlay and fuse-overlayfs stopped, and they
// where ours did.
func TestTakingTurns(t *testing.T) {
	t.Parallel()
	r := newRig(t, "mkdir -p a/sub b; echo a > a/f; ln a/f a/g; echo s > a/sub/s; echo b > b/b; echo c > c")
	lower := strings.Join(r.lowers, ":")
	turn := func(who, script string) {
		t.Helper()
		if who == "ours" {
			r.start()
			r.do(script)
			r.stop()
			return
		}
		fusetest.Must(t, `
			case $2 in
			kernel) mount -t overlay o -o lowerdir=$3,upperdir=$1/u,workdir=$1/w,index=on $1/m;;
			peer) mkdir -p $1/pw; fuse-overlayfs -o lowerdir=$3,upperdir=$1/u,workdir=$1/pw $1/m 2>/dev/null;;
			esac
			trap 'cd /; umount $1/m' EXIT; cd $1/m
			`+script, r.dir, who, lower)
	}
	turn("kernel", "rm a/f; echo more >> c; rm -r b; mkdir b; echo n > b/n; mkdir a/new")
	turn("ours", `test ! -e a/f; test "$(cat a/g)" = a; test "$(ls b)" = n; test "$(stat -c %h a/g)" = 1; mv a aa; echo x > aa/x; rm c`)
	turn("kernel", `test "$(ls)" = "aa
b"; test "$(ls aa)" = "g
new
sub
x"; rm -r aa/sub; echo k > c; mv b/n b/m`)
	if res := fusetest.Script(t, "command -v fuse-overlayfs"); res.Status == 0 {
		turn("ours", `test "$(cat c)" = k; test ! -e aa/sub; rm b/m; mkdir aa/sub; rm aa/g`)
		turn("peer", `test "$(ls aa)" = "new
sub
x"; test -z "$(ls b)"; rm -r aa; mkdir aa; echo p > aa/p`)
	} else {
		t.Log("fuse-overlayfs is not here to take a turn")
		turn("ours", "rm -r aa; mkdir aa; echo p > aa/p")
	}
	turn("ours", `test "$(ls)" = "aa
b
c"; test "$(cat aa/p)" = p; test "$(ls aa)" = p`)
}
