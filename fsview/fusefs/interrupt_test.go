package fusefs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

// stateOf returns the state of a process, as /proc tells it, and the signals that wait for it.
func stateOf(t *testing.T, pid int) (state string, pending sigset) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nState:\t")
	return rest[:1], maskOf(text, "SigPnd") | maskOf(text, "ShdPnd")
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("waited in vain until %s", what)
}

// stopped starts a shell that stops itself after a few traps; signals wait for
// it then.
func stopped(t *testing.T, traps string) int {
	t.Helper()
	cmd := exec.Command("sh", "-c", traps+` kill -STOP $$`)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	await(t, "the shell has stopped", func() bool { s, _ := stateOf(t, cmd.Process.Pid); return s == "T" })
	return cmd.Process.Pid
}

// A caller is to end when it is killed, and when it is asked to end; not at a
// signal that it catches or that does nothing.
func TestSignalsThatEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		traps string
		sent  []syscall.Signal
		want  bool
	}{
		{"", []syscall.Signal{syscall.SIGUSR1}, true},
		{"trap : USR1;", []syscall.Signal{syscall.SIGUSR1}, false},
		{"trap : USR1;", []syscall.Signal{syscall.SIGUSR1, syscall.SIGALRM}, true},
		{"trap : USR1 INT;", []syscall.Signal{syscall.SIGUSR1, syscall.SIGINT}, true},
		{"trap : USR1; trap '' INT;", []syscall.Signal{syscall.SIGUSR1, syscall.SIGINT}, false},
		{"trap : CHLD WINCH;", []syscall.Signal{syscall.SIGCHLD, syscall.SIGWINCH}, false},
		{"trap : TERM;", []syscall.Signal{syscall.SIGTERM}, true},
	} {
		pid := stopped(t, c.traps)
		for _, s := range c.sent {
			if err := syscall.Kill(pid, s); err != nil {
				t.Fatal(err)
			}
		}
		if got := ends(uint32(pid)); got != c.want {
			_, pending := stateOf(t, pid)
			t.Errorf("%s after %v: %v (pending %x)", c.traps, c.sent, got, pending)
		}
	}
	for _, pid := range []uint32{0, 1 << 30} {
		if !ends(pid) {
			t.Errorf("thread %d, of which nothing is known, is not to end", pid)
		}
	}
}

// patientFile is a file whose writes last until they are let go or interrupted.
type patientFile struct {
	base
	begun, ended, let chan struct{}
}

func (f *patientFile) Attr(context.Context) (vnode.Attr, error) { return regular(f.Ino(), 0), nil }
func (f *patientFile) Open(context.Context, int) (vnode.Handle, error) {
	return patientHandle{f}, nil
}

type patientHandle struct{ f *patientFile }

func (h patientHandle) Flags() vnode.OpenFlags                             { return vnode.DirectIO }
func (h patientHandle) Release(context.Context) error                      { return nil }
func (h patientHandle) ReadAt(context.Context, []byte, int64) (int, error) { return 0, nil }
func (h patientHandle) Truncate(context.Context, uint64) error             { return nil }
func (h patientHandle) WriteAt(ctx context.Context, p []byte, _ int64) (int, error) {
	h.f.begun <- struct{}{}
	select {
	case <-h.f.let:
		return len(p), nil
	case <-ctx.Done():
		h.f.ended <- struct{}{}
		return 0, ctx.Err()
	}
}

// A write goes on when its program catches a signal, and ends when it is killed.
func TestCaughtSignalsEndNothing(t *testing.T) {
	t.Parallel()
	f := &patientFile{base: base{name: "slow"}, begun: make(chan struct{}, 1), ended: make(chan struct{}, 1), let: make(chan struct{}, 1)}
	dir, _ := mounted(t, newDir("/", &calls{}, map[string]vnode.Node{"slow": f}), Options{})
	for _, end := range []syscall.Signal{0, syscall.SIGTERM, syscall.SIGINT, syscall.SIGKILL} {
		cmd := exec.Command("sh", "-c", `trap : USR1; echo x > $1/slow && echo done`, "sh", dir)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-f.begun
		if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		await(t, "the signal waits", func() bool {
			_, pending := stateOf(t, cmd.Process.Pid)
			return pending&setOf(syscall.SIGUSR1) != 0
		})
		time.Sleep(4 * lookAgain) // for what would be wrong to happen
		select {
		case <-f.ended:
			t.Errorf("%v: a caught signal ended the write", end)
		default:
		}
		if end == 0 {
			f.let <- struct{}{}
		} else {
			if err := cmd.Process.Signal(end); err != nil {
				t.Fatal(err)
			}
			<-f.ended
		}
		err := cmd.Wait()
		if ok := err == nil && out.String() == "done\n"; ok != (end == 0) {
			t.Errorf("%v: the writer ended with %v and said %q", end, err, &out)
		}
	}
}

// slowDir is a directory in which a look-up lasts until it is let go or interrupted.
type slowDir struct {
	*dir
	f *patientFile
}

func (d slowDir) Lookup(ctx context.Context, name string) (vnode.Child, error) {
	if name != "slow" {
		return vnode.Child{}, errno.ErrUnknown
	}
	d.f.begun <- struct{}{}
	select {
	case <-d.f.let:
		return vnode.Child{Node: d.f}, nil
	case <-ctx.Done():
		d.f.ended <- struct{}{}
		return vnode.Child{}, ctx.Err()
	}
}

// The same holds for a look-up, as that of merged/, which mounts.
func TestCaughtSignalsEndNoLookup(t *testing.T) {
	t.Parallel()
	f := &patientFile{base: base{name: "slow"}, begun: make(chan struct{}, 1), ended: make(chan struct{}, 1), let: make(chan struct{}, 1)}
	dir, _ := mounted(t, slowDir{newDir("/", &calls{}, nil), f}, Options{})
	for _, end := range []syscall.Signal{0, syscall.SIGTERM} {
		cmd := exec.Command("sh", "-c", `trap : USR1; test -e $1/slow && echo there`, "sh", dir)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-f.begun
		if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		await(t, "the signal waits", func() bool {
			_, pending := stateOf(t, cmd.Process.Pid)
			return pending&setOf(syscall.SIGUSR1) != 0
		})
		time.Sleep(4 * lookAgain) // for what would be wrong to happen
		if end == 0 {
			f.let <- struct{}{}
		} else if err := cmd.Process.Signal(end); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		if ok := err == nil && out.String() == "there\n"; ok != (end == 0) {
			t.Errorf("%v: it ended with %v and said %q", end, err, &out)
		}
	}
}
