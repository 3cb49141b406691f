package fuseoverlay

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// asked is the context of a request. It never ends: any signal with a handler,
// harmless ones too, interrupts a request, and no program expects EINTR of stat,
// mkdir or a write to a file. Only what may take long looks whether it is still
// wanted; see stopped.
type asked struct {
	context.Context
	cancel <-chan struct{} // closed by the first signal
	pid    uint32          // the caller's thread in the server's PID namespace; 0: not there
}

func request(cancel <-chan struct{}, h *fuse.InHeader) context.Context {
	return asked{context.Background(), cancel, h.Pid}
}

// stopped returns an error when nobody waits for the answer of a request any
// more: EINTR when its caller is being killed, as the kernel's overlay stops a
// copy-up then and for no other signal. One whose process cannot be seen is
// taken to wait.
func stopped(ctx context.Context) error {
	a, ok := ctx.(asked)
	if !ok {
		return ctx.Err()
	}
	select {
	case <-a.cancel:
		if beingKilled(a.pid) {
			return syscall.EINTR
		}
	default:
	}
	return nil
}

// lookAgain is how often a waiting request that was interrupted looks whether its
// caller is being killed: the kernel tells of the first signal only.
const lookAgain = 50 * time.Millisecond

// await waits until done is closed, or returns stopped's error.
func await(ctx context.Context, done <-chan struct{}) error {
	var signal <-chan struct{}
	if a, ok := ctx.(asked); ok {
		signal = a.cancel
	}
	for {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-signal:
		}
		if err := stopped(ctx); err != nil {
			return err
		}
		select {
		case <-done:
			return nil
		case <-time.After(lookAgain):
		}
	}
}

// beingKilled tells whether SIGKILL is pending for a thread: each fatal signal
// but those that dump a core gives it to all of a process's threads (kernel,
// complete_signal). proc(5) shows pending signals as masks, in hexadecimal.
func beingKilled(pid uint32) bool {
	if pid == 0 {
		return false
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // read only
	for s := bufio.NewScanner(f); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		if name != "SigPnd" && name != "ShdPnd" {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err == nil && mask&(1<<(syscall.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}
