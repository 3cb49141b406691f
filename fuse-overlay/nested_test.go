package fuseoverlay

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestNested: an upper on another mount of ours takes neither devices 0:0 nor
// `.wh.` names. Whiteouts are then empty files with an attribute, as the kernel
// reads them too; said once, at the mount.
func TestNested(t *testing.T) {
	t.Parallel()
	outer := newRig(t, "")
	outer.start()
	r := newRig(t, "echo f > f; echo g > g; mkdir d e m; echo g > d/g; echo h > d/h; echo x > e/x; echo y > e/y; echo z > m/z; echo w > m/w")
	r.config.Upper, r.config.Work = outer.mount+"/u", outer.mount+"/w"
	fusetest.Must(t, "mkdir $1/u $1/w", outer.mount)
	var said logText
	log := logrus.New()
	log.SetOutput(&said)
	r.config.Log = logrus.NewEntry(log)
	r.start()
	if got := said.String(); strings.Count(got, "attribute") != 1 {
		t.Errorf("the log says: %s", got)
	}
	r.do(`rm f d/g; mv d/h d/i; mv g e/new; echo again > g; rm -r e; mkdir e; rm m/w; mv m n; echo f2 > link; ln link f; rm f; mkdir f; rmdir f
		[ "$(find . | sort | tr '\n' ' ')" = ". ./d ./d/i ./e ./g ./link ./n ./n/z " ]`)
	r.stop()
	show := `find . ! -type d | sort | xargs grep -H .`
	want := "./d/i:h\n./g:again\n./link:f2\n./n/z:z\n"
	r.start()
	if got := r.do(show); got != want {
		t.Errorf("after a remount: %s", got)
	}
	r.stop()
	got := fusetest.Must(t, `mount -t overlay o -o ro,lowerdir=$1:$2 $3; trap 'cd /; umount $3' EXIT; cd $3
		`+show, r.config.Upper, r.lowers[0], r.mount)
	if got != want {
		t.Errorf("the kernel reads that upper as\n%s", got)
	}
}

// TestNoWhiteouts: where no mark of a removed file can be made at all, nothing
// is mounted, and the reason and what to do is said.
func TestNoWhiteouts(t *testing.T) {
	t.Parallel()
	outer := newRig(t, "")
	outer.config.NoXattrs = true
	outer.start()
	fusetest.Must(t, "mkdir $1/u $1/w", outer.mount)
	r := newRig(t, "echo f > f")
	r.config.Upper, r.config.Work = filepath.Join(outer.mount, "u"), filepath.Join(outer.mount, "w")
	s, err := Mount(r.config, r.mount)
	if err == nil {
		go func() { _ = s.Serve() }()
		check(t, unix.Unmount(r.mount, 0))
		t.Fatal("it is mounted")
	}
	for _, want := range []string{r.config.Work, "nor as .wh. files", "on another filesystem"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not said: %v", want, err)
		}
	}
}
