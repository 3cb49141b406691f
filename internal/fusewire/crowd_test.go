package fusewire

import (
	"os/exec"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// crowded mounts a tree whose server takes a row of several programs for a crowd
// however slowly it comes.
func crowded(t *testing.T) (*tree, *Server, string) {
	t.Helper()
	f, s, dir, _ := serveUntil(t, func(fs fuse.RawFileSystem, dir string, o *fuse.MountOptions) (*Server, error) {
		s, err := shown(fs, dir, o)
		if err == nil {
			s.crowd.able, s.crowd.within = s.talk.able.Load(), time.Hour
		}
		return s, err
	})
	if !s.crowd.able {
		t.Skip("no crowds: one processor, or no /proc/self/schedstat")
	}
	return f, s, dir
}

// many has six shells look for 300 names each, in turn.
const many = `for p in 1 2 3 4 5 6; do
	( i=0; while [ $i -lt 300 ]; do [ ! -e $1/x$p-$i-$$ ] || exit 1; i=$((i+1)); done ) &
	pids="$pids $!"
done
for p in $pids; do wait $p || exit 1; done`

// noCrowd waits until there is no crowd.
func noCrowd(t *testing.T, s *Server) {
	t.Helper()
	for s.crowd.guarding.Load() {
		time.Sleep(time.Millisecond)
	}
	if s.crowd.alone.Load() != nil {
		t.Error("one reads alone, and nobody guards that")
	}
}

func TestCrowd(t *testing.T) {
	f, s, dir := crowded(t)
	fusetest.Must(t, many, dir)
	if s.Crowds() == 0 || f.asked.Load() < 1800 {
		t.Errorf("%d look-ups of 1800, %d crowds", f.asked.Load(), s.Crowds())
	}
	noCrowd(t, s)
	atRest(t, s)
	stats(t, dir, 100)
}

// The only reader has a request that is not answered: others read.
func TestCrowdIsNotHeldUp(t *testing.T) {
	f, s, dir := crowded(t)
	for range 3 {
		f.waiter.Store(0)
		s.crowd.quiet.Store(0) // no pause
		before := s.Crowds()
		cmd := exec.Command("sh", "-c", many+"; [ ! -e $1/wait ]", "sh", dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for f.waiter.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		// Nobody else asks any more: this is answered by another reader, in a crowd or not.
		fusetest.Must(t, many, dir)
		f.release <- struct{}{}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		if s.Crowds() == before {
			t.Error("no crowd")
		}
		noCrowd(t, s)
	}
}

// The guard ends a crowd that is at work on one request, and the reader in whose
// hand it is goes on as one of several.
func TestCrowdWithASlowRequest(t *testing.T) {
	f, s, dir := crowded(t)
	f.releaseOften(t)
	r := fusetest.Script(t, `for p in 1 2 3 4 5 6; do
	( i=0; while [ $i -lt 200 ]; do [ ! -e $1/x$p-$i ] || exit 1; i=$((i+1)); [ $i != 150 ] || [ ! -e $1/wait ]; done ) &
	pids="$pids $!"
done
for p in $pids; do wait $p || exit 1; done`, dir)
	if r.Status != 0 {
		t.Errorf("status %d: %s%s", r.Status, r.Out, r.Err)
	}
	noCrowd(t, s)
	atRest(t, s)
}

// releaseOften answers each "wait" a while later, until the test's end.
func (f *tree) releaseOften(t *testing.T) {
	t.Helper()
	end := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			case f.release <- struct{}{}:
				time.Sleep(3 * tick)
			}
		}
	}()
	t.Cleanup(func() { close(end); <-done })
}

// A connection that is cut in a crowd: readers and guard end.
func TestCrowdCutOff(t *testing.T) {
	f, s, dir := crowded(t)
	cmd := exec.Command("sh", "-c", `for p in 1 2 3 4 5 6; do
	( i=0; while [ $i -lt 3000 ]; do [ -e $1/x$p-$i ]; i=$((i+1)); done ) &
	pids="$pids $!"
done
wait $pids`, "sh", dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for f.asked.Load() < 600 {
		time.Sleep(time.Millisecond)
	}
	_ = unix.Unmount(dir, unix.MNT_FORCE) // cuts the connection first, then is refused: the mount is in use
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	s.loops.Wait()
	noCrowd(t, s)
}

func TestCrowdPauses(t *testing.T) {
	c := crowding{pause: pauseFirst}
	last := time.Duration(0)
	for range 20 {
		c.rest(true, 0, 0)
		if got := time.Duration(c.quiet.Load()); got < last || got > pauseSlow {
			t.Fatalf("a pause of %v after %v", got, last)
		} else {
			last = got
		}
	}
	if last != pauseSlow || c.pause != pauseSlow {
		t.Errorf("%v, then %v", last, c.pause)
	}
	if c.rest(false, healthy+1, 0); c.pause != pauseFirst {
		t.Errorf("%v after a good one", c.pause)
	}
}
