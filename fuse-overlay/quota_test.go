package fuseoverlay

import (
	"errors"
	"fmt"
	"testing"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestBoundHolds: whatever takes room in the upper is stopped by the bound, and
// what was counted on the way is what the next mount counts.
func TestBoundHolds(t *testing.T) {
	t.Parallel()
	const bound = 1 << 20
	const until = `i=0; while test $i -lt 9000; do i=$((i+1)); `
	const end = ` || { grep -q "quota exceeded" ../err && exit 0; cat ../err; exit 1; }; done 2>../err; echo "no end"; exit 1`
	for name, script := range map[string]string{
		"directories": until + `mkdir x$i` + end,
		"symlinks":    until + `ln -s $(printf %0300d $i) x$i` + end,
		"copied-up":   `cd dirs; ` + until + `chmod 700 $i` + `|| { grep -q "quota exceeded" ../../err && exit 0; cat ../../err; exit 1; }; done 2>../../err; echo "no end"; exit 1`,
		"links": `python3 -c '
import errno, os
os.close(os.open("f", os.O_CREAT))
for i in range(20000):
    try: os.link("f", "%0200d" % i)
    except OSError as e:
        assert e.errno == errno.EDQUOT, e
        break
else: raise SystemExit("no end")'`,
		"names": `python3 -c '
import errno, os
for i in range(20000):
    try: os.close(os.open("%0250d" % i, os.O_CREAT | os.O_WRONLY))
    except OSError as e:
        assert e.errno == errno.EDQUOT, e
        break
else: raise SystemExit("no end")'`,
		"attributes": `python3 -c '
import errno, os
for i in range(20000):
    p = "f%d" % i
    try:
        os.close(os.open(p, os.O_CREAT | os.O_WRONLY))
        os.setxattr(p, "user.a", bytes(2000))
    except OSError as e:
        assert e.errno == errno.EDQUOT, e
        break
else: raise SystemExit("no end")'`,
		"data": `dd if=/dev/zero of=f bs=4096 count=500 2>../err && exit 1; grep -q "quota exceeded" ../err`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "mkdir dirs; cd dirs; seq 2000 | xargs mkdir")
			r.config.MaxBytes = bound
			r.start()
			r.do(script)
			r.sameCount()
			if got, _ := r.server.o.quota.holds(); got > bound+2*blockRoom {
				t.Errorf("holds %d bytes and may hold %d", got, bound)
			}
		})
	}
}

// sameCount sees that what is counted is what a new mount counts.
func (r *rig) sameCount() {
	r.t.Helper()
	before, files := r.server.o.quota.holds()
	r.stop()
	r.start()
	// A block less than was counted: ext4 merges a file's extents when it writes them.
	if now, k := r.server.o.quota.holds(); now > before || now < before-blockRoom || k != files {
		r.t.Errorf("counted %d bytes in %d files, and now %d in %d", before, files, now, k)
	}
}

func (q *quota) holds() (bytes int64, files int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes, len(q.files)
}

// TestBoundAndMarks: what a moved or removed directory's marks take is counted, also
// where they no longer fit into its inode.
func TestBoundAndMarks(t *testing.T) {
	t.Parallel()
	r := newRig(t, "mkdir low; cd low; seq 30 | xargs mkdir")
	r.config.MaxBytes = 1 << 40
	r.start()
	r.do(`for i in $(seq 30); do
		mkdir a$i b$i
		setfattr -n user.x -v $(printf %0$((4*i))d 1) a$i; setfattr -n user.x -v $(printf %0$((4*i))d 1) b$i; setfattr -n user.x -v $(printf %0$((4*i))d 1) low/$i
		mv a$i low/a$i; python3 -c 'import ctypes, sys
sys.exit(ctypes.CDLL(None).renameat2(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 2))' b$i low/$i; done`)
	r.sameCount()
}

// TestBoundAndMetacopy: a copy of metadata only takes no room for its data, and
// needs it when it gets them.
func TestBoundAndMetacopy(t *testing.T) {
	t.Parallel()
	r := newRig(t, "for i in 1 2 3 4; do head -c 600000 /dev/urandom > big$i; done")
	r.config.MaxBytes, r.config.Metacopy = 1<<20, true
	r.start()
	r.do("chmod 600 big*; echo x >> big1")
	for i := 2; i < 5; i++ {
		out := fusetest.Script(t, "cd $1; echo x >> big$2", r.mount, fmt.Sprint(i))
		if out.Status == 0 {
			t.Errorf("the second of 600000 bytes of %d has room", r.config.MaxBytes)
		}
	}
	r.do("cat big* | wc -c; rm big1")
	// Its room comes back when the kernel has forgotten it.
	check(t, eventually(func() error {
		if out := fusetest.Script(t, "cd $1; echo x >> big3", r.mount); out.Status != 0 {
			return errors.New(out.Err)
		}
		return nil
	}))
	r.sameCount()
	r.do("rm big3; cp big2 new; test $(stat -c %s new) = 600000")
}
