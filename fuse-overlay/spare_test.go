package fuseoverlay

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cut truncates a file, as O_TRUNC does.
func (r *earlyRig) cut(n *node) {
	r.t.Helper()
	st, err := r.o.setattr(r.ctx, n, change{size: new(uint64)})
	check(r.t, err)
	if st.Size != 0 {
		r.t.Errorf("a file that was truncated has %d bytes", st.Size)
	}
}

// spared waits until nobody makes any more, and returns how many there are, and
// how many were taken.
func (r *earlyRig) spared() (left int, taken uint64) {
	r.t.Helper()
	s := &r.o.spares
	for {
		s.mu.Lock()
		making := s.making
		left, taken = len(s.files), s.taken
		s.mu.Unlock()
		if !making {
			return left, taken
		}
		runtime.Gosched()
	}
}

func newSpareRig(t *testing.T) *earlyRig {
	r := newEarlyRig(t)
	r.o.spares.pause, r.o.spares.waits = time.Hour, time.Hour
	if !r.o.work.unnamed {
		t.Skip("no files without a name here")
	}
	t.Cleanup(func() { check(t, r.o.close()) })
	r.files = r.files[rowShort:] // those before are in the upper
	for _, n := range r.files[:spareRow] {
		r.cut(n)
	}
	return r
}

// TestSpares: a row of files that are truncated has empty ones made ahead, which
// become what others do: with the times of now, and what was below.
func TestSpares(t *testing.T) {
	t.Parallel()
	r := newSpareRig(t)
	if left, taken := r.spared(); left != spareMost || taken != 0 {
		t.Fatalf("after %d there are %d files, %d taken", spareRow, left, taken)
	}
	n := r.files[spareRow]
	check(t, os.Chmod(filepath.Join(r.lowers[0], "d", n.lower.name), 0o751)) // another mode than they have
	before, err := r.o.stat(n)
	check(t, err)
	time.Sleep(20 * time.Millisecond) // more than a tick of the filesystem's clock
	now := time.Now()
	r.cut(n)
	if left, taken := r.spared(); left != spareMost-1 || taken != 1 {
		t.Errorf("after one more there are %d, %d taken", left, taken)
	}
	after, err := r.o.stat(n)
	check(t, err)
	if late := now.Sub(after.Mtime); late > 15*time.Millisecond || late < -time.Minute {
		t.Errorf("it was changed %v before it was", late)
	}
	if !after.Atime.Equal(before.Atime) || after.Mode != before.Mode || after.UID != before.UID || after.Ino != before.Ino {
		t.Errorf("of %+v came %+v", before, after)
	}
	for _, n := range r.files[spareRow+1:] {
		r.cut(n)
		_, err := r.o.write(r.ctx, n, []byte("new"), 0, false)
		check(t, err)
		if got := r.content(n); got != "new" {
			t.Errorf("there is %q", got)
		}
	}
	if left, taken := r.spared(); left == 0 || taken != uint64(len(r.files)-spareRow) {
		t.Errorf("at the end there are %d, %d taken", left, taken)
	}
}

// TestSparesGoAway: they are not kept where there is no room, or when nobody takes any.
func TestSparesGoAway(t *testing.T) {
	t.Parallel()
	r := newSpareRig(t)
	r.spared()
	if !r.o.madeRoom(r.ctx, syscall.ENOSPC) {
		t.Error("there were none to be let go of")
	}
	if left, _ := r.spared(); left != 0 || r.o.madeRoom(r.ctx, unix.ENOSPC) {
		t.Errorf("%d are kept where there is no room", left)
	}
	next := r.files[spareRow:]
	for _, n := range next[:spareRow] {
		r.cut(n)
	}
	r.o.spares.waits = time.Millisecond
	if left, _ := r.spared(); left == 0 || !r.o.spares.drop() {
		t.Error("a second row has none made")
	}
	for _, n := range next[spareRow : 2*spareRow] {
		r.cut(n)
	}
	waitFor(t, "files that nobody takes are closed", func() bool { left, _ := r.spared(); return left == 0 })
}
