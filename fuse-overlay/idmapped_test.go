package fuseoverlay

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/idmap"
)

func TestIDMappedMountsAreFound(t *testing.T) {
	t.Parallel()
	got := mappedIn("29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n30 29 8:1 /l /m rw,relatime,idmapped - ext4 /dev/root rw\n31 29 8:1 /idmapped /idmapped rw - ext4 /idmapped rw,idmapped\nx y\n\n32 29 8:1 / /n ro,idmapped,nosuid - tmpfs t rw")
	if len(got) != 2 || !got[30] || !got[32] {
		t.Errorf("%v", got)
	}
}

// TestIDMappedLayers: a lower layer on an ID-mapped mount beside one that is on
// none, with uidmapping, as podman gives them; each owner is shown mapped once,
// and what is written is owned by what is on the disk of both.
func TestIDMappedLayers(t *testing.T) {
	t.Parallel()
	r := newRig(t, `echo a > a; chown 3:4 a; mkdir d; chown 5:6 d; echo x > d/x; chown 70000:0 d/x; setfacl -m u:7:r a; setfacl -d -m g:8:rx d; echo r > r; ln -s r s; chown -h 9:9 s`,
		`mkdir d; echo y > d/y; chown 1:2 d/y; echo b > b; chown 3:3 b`)
	mnt := r.dir + "/mapped"
	r.config.Lower = []string{mnt, r.lowers[1]}
	r.config.UIDs = []idmap.Range{{ContainerID: 0, HostID: 100000, Size: 1000}}
	r.config.GIDs = r.config.UIDs
	check(t, os.Mkdir(mnt, 0o755))
	check(t, unix.MoveMount(idMappedMount(t, r.lowers[0], r.config.UIDs, r.config.GIDs), "", unix.AT_FDCWD, mnt, unix.MOVE_MOUNT_F_EMPTY_PATH))
	t.Cleanup(func() { check(t, unix.Unmount(mnt, unix.MNT_DETACH)) })
	r.start()
	show := `stat -c '%n %u:%g' . a b d d/x d/y r s; getfacl -nc a d 2>/dev/null | grep -E '^(default:)?(user|group):[0-9]'`
	want := strings.Fields(`. 100000:100000 a 100003:100004 b 100003:100003 d 100005:100006 d/x 65534:100000 d/y 100001:100002 r 100000:100000 s 100009:100009 user:100007:r-- default:group:100008:r-x`)
	same := func() {
		t.Helper()
		if got := strings.Fields(r.do(show)); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("\n got %q\nwant %q", got, want)
		}
	}
	same()
	r.do("find . -ls >/dev/null; echo more >> a; touch d/x d/y; chmod 750 d; echo more >> b; touch -h s; chown 100001 r; setpriv --reuid 100005 --regid 100006 --clear-groups touch d/new")
	want[13] = "100001:100000"
	same()
	r.stop()
	if got := strings.Fields(fusetest.Must(t, `cd $1/u; stat -c '%n %u:%g' a b d d/new r s; getfacl -nc a d 2>/dev/null | grep -E '^(default:)?(user|group):[0-9]'`, r.dir)); strings.Join(got, " ") != "a 3:4 b 3:3 d 5:6 d/new 5:6 r 1:0 s 9:9 user:7:r-- default:group:8:r-x" {
		t.Errorf("in the upper: %q", got)
	}
	r.start()
	same()
}
