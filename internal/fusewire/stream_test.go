package fusewire

import (
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// streamed mounts a file of many large READs.
func streamed(t *testing.T) (*content, string) {
	t.Helper()
	data := make([]byte, 24<<20+99)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(data) // never fails
	c, path := serveContent(t, data, len(data), true)
	if !c.server.crowd.able {
		t.Skip("nobody reads alone: one processor, or no /proc/self/schedstat")
	}
	return c, path
}

// A row of large READs is answered by one reader, with what the file has; several
// programs' rows are too.
func TestStream(t *testing.T) {
	c, path := streamed(t)
	fusetest.Must(t, "dd if=$1 bs=1M status=none | cmp - $2", path, c.file.Name())
	if c.server.Crowds() == 0 {
		t.Errorf("nobody read alone in %d READs", c.spliced.Load())
	}
	fusetest.Must(t, `for p in 1 2 3; do dd if=$1 bs=1M status=none | cmp - $2 & pids="$pids $!"; done; for p in $pids; do wait $p || exit 1; done`, path, c.file.Name())
	noCrowd(t, c.server)
}

// The only reader has a READ that is not answered: others read, whatever is asked.
func TestStreamIsNotHeldUp(t *testing.T) {
	c, path := streamed(t)
	for range 3 {
		c.server.crowd.quiet.Store(0) // no pause
		before := c.server.Crowds()
		stop := filepath.Join(t.TempDir(), "stop")
		cmd := exec.Command("sh", "-c", `until [ -e $3 ]; do dd if=$1 bs=1M status=none | cmp - $2 || exit 1; done`, "sh", path, c.file.Name(), stop)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for c.server.Crowds() == before {
			time.Sleep(time.Millisecond)
		}
		c.hold.Store(true)
		<-c.held
		fusetest.Must(t, `[ ! -e $1x ] && [ ! -e $1y ]`, path)
		fusetest.Must(t, `: >$1`, stop)
		c.release <- struct{}{}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		noCrowd(t, c.server)
	}
}

// A connection that is cut in a row of READs: the reader and its guard end.
func TestStreamCutOff(t *testing.T) {
	c, path := streamed(t)
	cmd := exec.Command("sh", "-c", `while cat $1; do :; done >/dev/null 2>&1`, "sh", path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for c.server.Crowds() == 0 {
		time.Sleep(time.Millisecond)
	}
	_ = unix.Unmount(path[:len(path)-len("/f")], unix.MNT_FORCE) // cuts the connection first; refused while the mount is in use
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	c.server.loops.Wait()
	noCrowd(t, c.server)
}

// Who looks in vain looks less and less often, and again when it is of use.
func TestLookOut(t *testing.T) {
	p, _, err := newPipe(pipeRoom)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.close() }() // nothing is in it
	var s Server
	r := &reader{fd: p[0]}
	for _, want := range []int{1, 3, 7, 15, 31, 63, 63} {
		if s.lookOut(r); r.vain != want || r.rest != want {
			t.Errorf("%d, %d more, not %d", r.vain, r.rest, want)
		}
		for range want {
			s.lookOut(r)
		}
	}
	if _, err := unix.Write(p[1], []byte{1}); err != nil {
		t.Fatal(err)
	}
	if s.lookOut(r); r.vain != 0 || r.rest != 0 {
		t.Errorf("%d, %d more", r.vain, r.rest)
	}
}
