package fuseoverlay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// pipedRig is an overlay, not mounted, and two files: one of random bytes and one
// that is empty.
func pipedRig(t *testing.T, size int) (o *Overlay, from, to *os.File, want []byte) {
	t.Helper()
	r := newRig(t, "true")
	var err error
	o, err = newOverlay(r.config)
	check(t, err)
	t.Cleanup(func() { check(t, o.close()) })
	want = make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16)}).Read(want)
	check(t, os.WriteFile(filepath.Join(r.dir, "from"), want, 0o600))
	from, err = os.Open(filepath.Join(r.dir, "from"))
	check(t, err)
	to, err = os.OpenFile(filepath.Join(r.dir, "to"), os.O_CREATE|os.O_RDWR, 0o600)
	check(t, err)
	t.Cleanup(func() { _, _ = from.Close(), to.Close() })
	return o, from, to, want
}

// TestCopyPiped: what is copied by two is what it was, from where to where that
// was asked, on a filesystem that takes a reservation and on one that is not asked.
func TestCopyPiped(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, chunkSize - 1, chunkSize, chunkSize + 1, chunkCount * chunkSize, 9*chunkSize + 4097} {
		for _, reserves := range []bool{false, true} {
			o, from, to, want := pipedRig(t, size)
			o.work.ext4 = reserves
			begin, end := int64(size)/3, int64(size)
			at := begin
			check(t, o.copyPiped(t.Context(), int(from.Fd()), int(to.Fd()), begin, end, func(n int64) {
				if n <= at || n > end {
					t.Errorf("%d bytes: told of %d after %d", size, n, at)
				}
				at = n
			}))
			got, err := io.ReadAll(to)
			check(t, err)
			if at != end || !bytes.Equal(got[begin:], want[begin:]) || bytes.Count(got[:begin], []byte{0}) != int(begin) {
				t.Errorf("%d bytes: %d are there, told of %d, or they are others", size, len(got), at)
			}
		}
	}
}

// TestCopyGivesWay: while something is asked of the mount one copies alone, and for a
// while after; what is copied is what it was, however often that changes.
func TestCopyGivesWay(t *testing.T) {
	t.Parallel()
	var asked atomic.Uint64
	m := manners{asked: &asked}
	expect := func(want bool, when string) {
		t.Helper()
		if m.alone() != want {
			t.Errorf("%s: alone %t", when, !want)
		}
	}
	expect(false, "nothing was asked")
	for range 2 {
		asked.Add(3)
		for range askedLately {
			expect(true, "something was asked lately")
		}
		expect(false, "that was long ago")
	}

	// What is written to the next chunk of the source when one is there is copied, so
	// that was not read before: but for those that were ahead when it was asked first.
	const size = 9*askedLately*chunkSize + 4097
	o, from, to, want := pipedRig(t, size)
	source, err := os.OpenFile(from.Name(), os.O_WRONLY, 0)
	check(t, err)
	defer func() { check(t, source.Close()) }()
	chunks := 0
	check(t, o.copyPiped(t.Context(), int(from.Fd()), int(to.Fd()), 0, size, func(at int64) {
		if chunks++; chunks/(4*askedLately)%2 == 1 {
			return // nothing is asked for a while
		}
		o.asked.Add(1)
		if at < size && chunks > chunkCount && chunks < 4*askedLately {
			want[at] ^= 0xff
			if _, err := source.WriteAt(want[at:at+1], at); err != nil {
				t.Error(err)
			}
		}
	}))
	got, err := io.ReadAll(to)
	check(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("of %d bytes other ones were copied", size)
	}
}

// TestAsked: the kernel's requests are counted, those of a walk as those of a program
// that reads and writes.
func TestAsked(t *testing.T) {
	t.Parallel()
	r := newRig(t, "printf x >f")
	r.start()
	for _, script := range []string{"stat missing || true", "cat f", "printf y >>f"} {
		before := r.server.o.asked.Load()
		r.do(script)
		if r.server.o.asked.Load() == before {
			t.Errorf("%s asked for nothing", script)
		}
	}
}

// TestFewArePiped: only so many copies at once are made by two, each of which has
// memory of its own; the others are made by one, and the next by two again.
func TestFewArePiped(t *testing.T) {
	t.Parallel()
	if runtime.NumCPU() < 2 {
		t.Skip("one processor: no copy is made by two")
	}
	w := &work{ext4: true, dev: 7}
	src := &source{}
	src.st.Dev = 7
	for range mostPiped {
		if !w.pipes(src, pipedFrom) {
			t.Fatal("a copy among the first is not made by two")
		}
	}
	for range 2 {
		if w.pipes(src, pipedFrom) {
			t.Error("one more is made by two")
		}
	}
	w.piped()
	if !w.pipes(src, pipedFrom) || w.pipes(src, pipedFrom) {
		t.Error("after the end of one not one more is made by two")
	}
}

// TestCopyPipedEnds: a copy ends with what went wrong, and nothing of it goes on.
func TestCopyPipedEnds(t *testing.T) {
	t.Parallel()
	const size = 9 * chunkSize
	o, from, to, _ := pipedRig(t, size)
	copied := func(ctx context.Context, to *os.File, end int64, wrote func(int64)) error {
		return o.copyPiped(ctx, int(from.Fd()), int(to.Fd()), 0, end, wrote)
	}
	if err := copied(t.Context(), to, size+1, func(int64) {}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("of a file that was cut: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := copied(ctx, to, size, func(int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("of a copy that is stopped: %v", err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	check(t, err)
	defer func() { check(t, full.Close()) }()
	if err := copied(t.Context(), full, size, func(int64) {}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("where there is no room: %v", err)
	}
}

// TestBegun: the disk is told of what was written in long stretches, each once, and
// of nothing where nothing is settled.
func TestBegun(t *testing.T) {
	t.Parallel()
	o, _, to, _ := pipedRig(t, 1)
	if !o.settling() && !o.work.fleeting {
		t.Error("a mount that is not volatile does not settle")
	}
	b := begun{work: o.work, fd: int(to.Fd())}
	for _, c := range [][2]int64{{1, 0}, {begunEach - 1, 0}, {begunEach, begunEach}, {2*begunEach - 1, begunEach}, {3 * begunEach, 3 * begunEach}} {
		if b.wrote(c[0]); b.from != c[1] {
			t.Errorf("at %d it is begun up to %d", c[0], b.from)
		}
	}
	none := begun{}
	if none.wrote(5 * begunEach); none.from != 0 {
		t.Error("something is begun where nothing is settled")
	}
	o.c.Volatile = true
	if o.settling() {
		t.Error("a volatile mount settles")
	}
}

// TestLargeCopies: large files, one of them with holes, are copied up whole, and
// what does not fit leaves nothing: no name, no room taken.
func TestLargeCopies(t *testing.T) {
	t.Parallel()
	for name, mkfs := range map[string]string{"journal": "mkfs.ext4 -q", "none": "mkfs.ext4 -q -O ^has_journal", "without extents": "mkfs.ext4 -q -O ^extents,^64bit", "another's": "mkfs.ext4 -q"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, `head -c 21000001 /dev/urandom >large; head -c 70000000 /dev/urandom >over
				head -c 6000000 /dev/urandom >holes; truncate -s 50000000 holes; head -c 5000001 /dev/urandom >>holes`)
			size := int64(160)
			if name == "another's" {
				size = 64
			}
			_, at := fusetest.Loop(t, r.dir, size, mkfs, "")
			fusetest.Must(t, "mkdir $1/u $1/w", at)
			if name != "another's" {
				fusetest.Must(t, "mv $1 $2/l", r.lowers[0], at)
				r.lowers[0] = at + "/l"
			}
			r.config.Lower, r.config.Upper, r.config.Work = r.lowers, at+"/u", at+"/w"
			r.start()
			r.do("chmod 600 large; printf x >>large; printf x >>holes")
			for f, size := range map[string]int64{"large": 21000001, "holes": 55000001} {
				want, err := os.ReadFile(filepath.Join(r.lowers[0], f))
				check(t, err)
				got, err := os.ReadFile(filepath.Join(at, "u", f))
				check(t, err)
				if int64(len(got)) != size+1 || !bytes.Equal(got[:size], want) || got[size] != 'x' {
					t.Errorf("%s is another after it was copied up: %d bytes", f, len(got))
				}
				var st unix.Stat_t
				check(t, unix.Stat(filepath.Join(at, "u", f), &st))
				if most := int64(21<<20 + 1<<16); st.Blocks*512 > most {
					t.Errorf("%s takes %d bytes", f, st.Blocks*512)
				}
			}
			var before, after unix.Statfs_t
			fusetest.Must(t, "sync -f $1", at)
			check(t, unix.Statfs(at, &before))
			if out := fusetest.Script(t, "cd $1; printf x >>over", r.mount); out.Status == 0 || !strings.Contains(out.Err, "No space left") {
				t.Errorf("70 MB fit: %d, %s", out.Status, out.Err)
			}
			fusetest.Must(t, "sync -f $1", at)
			check(t, unix.Statfs(at, &after))
			if _, err := os.Lstat(filepath.Join(at, "u/over")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a copy that did not fit has a name: %v", err)
			}
			if gone := int64(before.Bfree) - int64(after.Bfree); gone > 4 {
				t.Errorf("%d blocks are gone", gone)
			}
		})
	}
}

// TestLargeOutlivesPowerLoss copies a large file up, whose data are begun to be
// written before all are there, and takes the disk as it is once its name is on it.
// Nothing but the journal's order puts one after the other here.
func TestLargeOutlivesPowerLoss(t *testing.T) {
	t.Parallel()
	r := newRig(t, "head -c 21000001 /dev/urandom >large")
	disk, at := fusetest.Loop(t, r.dir, 64, "mkfs.ext4 -q", "commit=1000")
	fusetest.Must(t, "mkdir $1/u $1/w", at)
	r.config.Upper, r.config.Work = at+"/u", at+"/w"
	r.start()
	r.do("chmod 600 large")
	syncDirs(t, at+"/u", at)
	later := filepath.Join(r.dir, "later")
	fusetest.Must(t, "mkdir $2; cp --sparse=always $1 $1-lost; mount -o loop $1-lost $2", disk, later)
	defer fusetest.Must(t, "umount -l $1", later)
	want, err := os.ReadFile(filepath.Join(r.lowers[0], "large"))
	check(t, err)
	got, err := os.ReadFile(filepath.Join(later, "u/large"))
	check(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d are there, or others", len(got), len(want))
	}
}
