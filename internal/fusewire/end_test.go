package fusewire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestHoldChild is the child of hold: it stops one thread of its parent.
func TestHoldChild(t *testing.T) {
	tid, err := strconv.Atoi(os.Getenv("HOLD"))
	if err != nil {
		t.Skip("runs as a child of TestEndLeavesTheTalker")
	}
	runtime.LockOSThread()
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	if err := unix.PtraceSeize(tid); err != nil {
		fmt.Println("no:", err)
		return
	}
	var st unix.WaitStatus
	if err := unix.PtraceInterrupt(tid); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(tid, &st, unix.WALL, nil); err != nil {
		t.Fatal(err)
	}
	fmt.Println("held")
	select {
	case <-asked:
		fmt.Println("still held")
	case <-time.After(30 * time.Second): // whoever waits for the thread goes on
	}
}

// hold stops a thread of this process, as one is that never gets a processor.
// letGo tells whether it was stopped until then.
func hold(t *testing.T, tid int) (letGo func() bool) {
	t.Helper()
	cmd := exec.Command(fusetest.Exe(t), "-test.run=^TestHoldChild$")
	cmd.Env = append(os.Environ(), "PLYFS_TEST_CHILD=1", "HOLD="+strconv.Itoa(tid))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if lines.Scan(); lines.Text() != "held" {
		_ = cmd.Wait() // it said what it had to
		t.Skipf("a thread cannot be stopped (ptrace): %q", lines.Text())
	}
	return func() bool {
		_ = cmd.Process.Signal(syscall.SIGTERM) // gone: it says nothing
		still := lines.Scan() && lines.Text() == "still held"
		_ = cmd.Wait() // all was said
		return still
	}
}

// A talker that never gets its processor again, and has nothing in hand, keeps
// nobody waiting when the mount is gone.
func TestEndLeavesTheTalker(t *testing.T) {
	f, s, dir, served := serveUntil(t, shown)
	dialogue(t, f, s, dir)
	atRest(t, s)
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection would wait for the thread
	letGo := hold(t, int(s.talk.tid.Load()))
	err := unix.Unmount(dir, unix.MNT_DETACH)
	<-served
	if !letGo() {
		t.Error("Serve returned only when the talker's thread went on")
	}
	if err != nil {
		t.Error(err)
	}
}

// That the mount is gone is known while a request is at work still.
func TestGoneBesideRequests(t *testing.T) {
	f, s, dir, served := serveUntil(t, shown)
	f.deaf.Store(true)
	cmd := exec.Command("sh", "-c", `[ -e $1/wait ]`, "sh", dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for f.waiter.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	_ = unix.Unmount(dir, unix.MNT_FORCE) // cuts the connection first, then is refused: the mount is in use
	_ = cmd.Wait()                        // fails with ENOTCONN, or ECONNABORTED
	<-s.Gone()
	select {
	case <-served:
		t.Error("Serve did not wait for a request")
	case f.release <- struct{}{}:
	}
	<-served
}

// Show and Unmount at once: the mount is not there in the end, whichever came first.
func TestShowBesideUnmount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mount(2) of FUSE needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	dir := t.TempDir()
	for range 20 {
		f := &tree{RawFileSystem: fuse.NewDefaultRawFileSystem(), release: make(chan struct{})}
		s, err := New(f, dir, &fuse.MountOptions{Name: "fusewire-test", DirectMount: true, Logger: log.New(io.Discard, "", 0)})
		if err != nil {
			t.Fatal(err)
		}
		served, show := make(chan struct{}), make(chan error)
		go func() { s.Serve(); close(served) }()
		go func() { show <- s.Show() }()
		err = s.Unmount()
		if serr := <-show; err != nil || serr != nil && !errors.Is(serr, unix.ENODEV) {
			t.Errorf("unmount: %v, show: %v", err, serr)
		}
		<-served
		if out := fusetest.Must(t, `grep -F " $1 " /proc/self/mounts || true`, dir); out != "" {
			t.Fatal("still there:", out)
		}
	}
}
