package fuseoverlay

import (
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestLacksAreSaid: what the upper's filesystem cannot do is said when it is
// mounted, and nothing where there is nothing to say.
func TestLacksAreSaid(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fs, want string
		files    bool
	}{{"tmpfs", "", false}, {"tmpfs", "", true}, {"ramfs", "no extended attributes", false}} {
		r := newRig(t, "echo a > a; ln a b; mkdir d; echo x > d/x")
		var said logText
		log := logrus.New()
		log.SetOutput(&said)
		r.config.Log, r.config.FileWhiteouts = logrus.NewEntry(log), c.files
		at := r.dir + "/at"
		fusetest.Must(t, "mkdir $1 && mount -t $2 x $1 && mkdir $1/u $1/w", at, c.fs)
		t.Cleanup(func() { check(t, unix.Unmount(at, unix.MNT_DETACH)) })
		r.config.Upper, r.config.Work = at+"/u", at+"/w"
		r.start()
		if got := said.String(); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.fs, got)
		}
		r.do("echo more >> a; rm -r d; mkdir d; ! ls d | grep .; cat a | grep more; rm b; ! cat b 2>/dev/null")
		r.stop()
	}
}

// TestCopiesShareData: where the filesystem can, a copy-up and copy_file_range
// share the blocks of what they copy.
func TestCopiesShareData(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	_, at := fusetest.Loop(t, r.dir, 300, "mkfs.btrfs -q", "")
	fusetest.Must(t, "cd $1; mkdir l u w; head -c 4M /dev/urandom > l/big; sync -f .", at)
	r.config.Lower, r.config.Upper, r.config.Work = []string{at + "/l"}, at+"/u", at+"/w"
	r.start()
	r.do(`cp big copied; cmp big copied
		python3 -c 'import os; a = os.open("big", os.O_RDONLY); b = os.open("ranged", os.O_CREAT | os.O_RDWR); print(os.copy_file_range(a, b, 1 << 22))'
		cmp big ranged; chmod 600 big; sync -f .`)
	r.stop()
	for _, name := range []string{"big", "ranged"} {
		if out := fusetest.Must(t, "filefrag -v $1/u/$2", at, name); !strings.Contains(out, "shared") {
			t.Errorf("%s shares nothing: %s", name, out)
		}
	}
}
