package fuseoverlay

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestCopyUpOutlivesPowerLoss copies files up while the journal commits, takes
// the disk as it is at some moment, and looks at what its journal brings back:
// each file that is there is whole.
func TestCopyUpOutlivesPowerLoss(t *testing.T) {
	r := newRig(t, `for i in $(seq 40); do head -c 100000 /dev/urandom >f$i; done`)
	disk, at, later := filepath.Join(r.dir, "disk"), filepath.Join(r.dir, "at"), filepath.Join(r.dir, "later")
	if out := fusetest.Script(t, `mkdir $2 $3; truncate -s 64M $1 && mkfs.ext4 -q $1 && mount -o loop,commit=1000 $1 $2 && mkdir $2/u $2/w`, disk, at, later); out.Status != 0 {
		t.Skipf("no ext4 on a loop device here: %s", out.Err)
	}
	t.Cleanup(func() { fusetest.Script(t, "umount $1", at) })
	r.config.Upper, r.config.Work = at+"/u", at+"/w"
	r.start()
	for i := range 40 {
		r.do(fmt.Sprintf("chmod 600 f%d", i+1))
		if i%5 != 4 {
			continue
		}
		f, err := os.Create(at + "/commit") // its fsync commits the links made so far
		check(t, err)
		_, err = f.WriteString("x")
		check(t, err)
		check(t, f.Sync())
		check(t, f.Close())
	}
	fusetest.Must(t, "cp --sparse=always $1 $1-lost && mount -o loop $1-lost $2", disk, later)
	defer fusetest.Must(t, "umount -l $1", later)
	found := 0
	entries, err := os.ReadDir(later + "/u")
	check(t, err)
	for _, e := range entries {
		want, err := os.ReadFile(filepath.Join(r.lowers[0], e.Name()))
		check(t, err)
		got, err := os.ReadFile(filepath.Join(later, "u", e.Name()))
		check(t, err)
		if string(got) != string(want) {
			t.Errorf("%s was copied up, and is not whole: %d of %d bytes, or others", e.Name(), len(got), len(want))
		}
		found++
	}
	if found == 0 {
		t.Error("nothing was committed: the test shows nothing")
	}
}

// TestEarlyOutlivesPowerLoss copies files up before they are asked for, and takes
// the disk as it is once their names are on it: each is whole, with a journal and
// without.
func TestEarlyOutlivesPowerLoss(t *testing.T) {
	t.Parallel()
	for name, made := range map[string][2]string{"journal": {"mkfs.ext4 -q", "commit=1000"}, "none": {"mkfs.ext4 -q -O ^has_journal", ""}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, `for i in $(seq 100); do head -c 50000 /dev/urandom >f$i; done`)
			disk, at := fusetest.Loop(t, r.dir, 64, made[0], made[1])
			fusetest.Must(t, "mkdir $1/u $1/w", at)
			r.config.Upper, r.config.Work = at+"/u", at+"/w"
			r.start()
			r.server.o.earlyCopies.patient()
			r.do("chmod -R go= .")
			if r.server.o.earlyCopies.taken() == 0 {
				t.Error("no copy was made before it was asked for: the test shows nothing")
			}
			syncDirs(t, at+"/u", at) // names, and where there is a journal all before them
			lost := filepath.Join(r.dir, "later")
			fusetest.Must(t, "mkdir $2; cp --sparse=always $1 $1-lost; e2fsck -fy $1-lost || test $? -lt 4; mount -o loop $1-lost $2", disk, lost)
			defer fusetest.Must(t, "umount -l $1", lost)
			found := namesIn(t, lost+"/u")
			for _, name := range found {
				want, err := os.ReadFile(filepath.Join(r.lowers[0], name))
				check(t, err)
				got, err := os.ReadFile(filepath.Join(lost, "u", name))
				if err != nil || string(got) != string(want) {
					t.Errorf("%s was copied up, and is not whole: %d of %d bytes, or others: %v", name, len(got), len(want), err)
				}
			}
			if len(found) == 0 {
				t.Error("no name is on the disk: the test shows nothing")
			}
		})
	}
}

// TestSyncedOutlivesPowerLoss takes the disk as it is after each kind of
// synchronisation of a file through the mount: all of it is there.
func TestSyncedOutlivesPowerLoss(t *testing.T) {
	t.Parallel()
	for name, passthrough := range map[string]Passthrough{"cached": PassthroughOff, "passed": PassthroughOnly} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "mkdir d; head -c 100000 /dev/urandom > d/low")
			disk, at := fusetest.Loop(t, r.dir, 64, "mkfs.ext4 -q", "commit=1000")
			fusetest.Must(t, "mkdir $1/u $1/w", at)
			r.config.Upper, r.config.Work, r.config.Passthrough = at+"/u", at+"/w", passthrough
			r.start()
			r.do(`python3 -c '
import mmap, os
def made(name, how=0): return os.open("d/" + name, os.O_RDWR | os.O_CREAT | how)
for name, sync in ("fsync", os.fsync), ("fdatasync", os.fdatasync), ("low", os.fsync):
    f = made(name); os.pwrite(f, b"synced", 50000); sync(f)
f = made("osync", os.O_SYNC); os.pwrite(f, b"synced", 50000)
f = made("mapped"); os.ftruncate(f, 60000); m = mmap.mmap(f, 60000); m[50000:50006] = b"synced"; m.flush()
os.fsync(os.open("d", os.O_RDONLY))'`)
			lost := filepath.Join(r.dir, "later")
			fusetest.Must(t, "mkdir $2; cp --sparse=always $1 $1-lost && mount -o loop $1-lost $2", disk, lost)
			defer fusetest.Must(t, "umount -l $1", lost)
			for _, f := range []string{"fsync", "fdatasync", "low", "osync", "mapped"} {
				b, err := os.ReadFile(filepath.Join(lost, "u/d", f))
				if err != nil || len(b) < 50006 || string(b[50000:50006]) != "synced" {
					t.Errorf("%s: %d bytes, %v", f, len(b), err)
				}
			}
			b, err := os.ReadFile(filepath.Join(lost, "u/d/low"))
			check(t, err)
			if want, err := os.ReadFile(filepath.Join(r.lowers[0], "d/low")); err != nil || len(b) != len(want) || string(b[:50000]) != string(want[:50000]) {
				t.Errorf("the copied-up file is not whole: %d bytes, %v", len(b), err)
			}
		})
	}
}

// syncDirs has directories written to the disk, one after the other.
func syncDirs(t *testing.T, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		f, err := os.Open(d)
		check(t, err)
		check(t, f.Sync())
		check(t, f.Close())
	}
}
