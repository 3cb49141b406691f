package fusefs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// lookAgain is how often a caller is looked at that a signal waits for.
const lookAgain = 50 * time.Millisecond

// patient turns the kernel's interrupt of a request into one for callers that
// are to end. The kernel sends one for any signal, also for one that the program
// catches to go on afterwards (SIGCHLD, SIGALRM, SIGWINCH, Go's own SIGURG), and
// for one that stops it; and it sends one only. So from then on the signals that
// wait for the thread pid are looked at, until the request is answered: call the
// function returned then.
//
// It is for requests that change something, and for what programs do not expect
// EINTR of. Reads are interrupted at any signal, as read(2) of a pipe is.
func patient(cancel <-chan struct{}, pid uint32) (<-chan struct{}, func()) {
	ended, answered := make(chan struct{}), make(chan struct{})
	go func() {
		select {
		case <-cancel:
		case <-answered:
			return
		}
		for !ends(pid) {
			select {
			case <-answered:
				return
			case <-time.After(lookAgain):
			}
		}
		close(ended)
	}()
	return ended, func() { close(answered) }
}

// waiting is the context of a request that seldom waits for anything: it looks for
// interrupts, as patient does, from when somebody asks for Done.
type waiting struct {
	*fuse.Context
	pid  uint32
	once sync.Once
	done <-chan struct{}
	stop func()
}

// Done implements context.Context.
func (w *waiting) Done() <-chan struct{} {
	w.once.Do(func() { w.done, w.stop = patient(w.Cancel, w.pid) })
	return w.done
}

// Err implements context.Context.
func (w *waiting) Err() error {
	select {
	case <-w.Cancel:
	default:
		return nil
	}
	select {
	case <-w.Done():
		return context.Canceled
	default:
		return nil
	}
}

// answered ends what Done began.
func (w *waiting) answered() {
	w.once.Do(func() {})
	if w.stop != nil {
		w.stop()
	}
}

// sigset is a set of signals as /proc shows it: signal n is bit n-1.
type sigset uint64

func setOf(list ...syscall.Signal) (s sigset) {
	for _, n := range list {
		s |= 1 << (n - 1)
	}
	return s
}

// ends tells whether a signal waits for the thread that is to end what it does:
// one that kills it, or one of those that ask a program to end, which shells
// catch. Where nothing is known (another pid namespace, a thread that waits no
// more since the mount is gone) it is to end.
func ends(pid uint32) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if pid == 0 || err != nil {
		return true
	}
	pending := (maskOf(text, "SigPnd") | maskOf(text, "ShdPnd")) &^ maskOf(text, "SigBlk") &^ maskOf(text, "SigIgn")
	if pending == 0 {
		return true
	}
	asks := setOf(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM)
	harmless := setOf(syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGURG, syscall.SIGWINCH,
		syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	return pending&(asks|^(maskOf(text, "SigCgt")|harmless)) != 0
}

// maskOf reads a set of signals of /proc/PID/status (proc_pid_status(5)).
func maskOf(status []byte, key string) sigset {
	_, rest, ok := bytes.Cut(status, []byte("\n"+key+":\t"))
	if !ok {
		return 0
	}
	word, _, _ := bytes.Cut(rest, []byte("\n"))
	n, err := strconv.ParseUint(string(word), 16, 64)
	if err != nil {
		return 0
	}
	return sigset(n)
}
