package fusewire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// param is struct sched_param.
type param struct{ priority int32 }

func setPolicy(tid int, policy uintptr) error {
	if _, _, no := unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, uintptr(tid), policy, uintptr(unsafe.Pointer(&param{}))); no != 0 {
		return fmt.Errorf("scheduling policy of thread %d: %w", tid, no)
	}
	return nil
}

// setIdle and setNormal set a thread's policy, of the caller for 0.
func setIdle(tid int) error   { return setPolicy(tid, unix.SCHED_IDLE) }
func setNormal(tid int) error { return setPolicy(tid, unix.SCHED_NORMAL) }

// bind binds the calling thread to a processor. One that was taken away meanwhile is no
// harm: the thread stays where it is.
func bind(cpu int) {
	var set unix.CPUSet
	set.Set(cpu)
	bindAll(0, &set)
}

func bindAll(tid int, set *unix.CPUSet) { _ = unix.SchedSetaffinity(tid, set) }

// sleep waits without the timers of the runtime, which would wake other threads.
func sleep(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&t, nil) // a signal ends it early: the guard looks a bit sooner
}

// ordinary tells whether this process has the policy that a lift gives back. One
// that was started with another keeps it.
func ordinary() bool {
	p, _, no := unix.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
	return no == 0 && p == unix.SCHED_NORMAL
}

// accounted tells whether the kernel tells how long threads wait for their turn.
func accounted() bool {
	b := readSmall("/proc/thread-self/schedstat")
	return len(b) > 0 && b[0] != '0'
}

// meter measures how long a thread of this process waits for its turn.
type meter struct {
	f    *os.File
	last time.Duration
}

// delay returns that since the last call; 0 for the first, or for no thread.
func (m *meter) delay(tid int) time.Duration {
	first := m.f == nil
	if first && tid != 0 {
		m.f, _ = os.Open(fmt.Sprintf("/proc/self/task/%d/schedstat", tid)) // nil: nothing is known of it
	}
	if m.f == nil {
		return 0
	}
	var buf [128]byte
	n, err := m.f.ReadAt(buf[:], 0)
	fields := bytes.Fields(buf[:n])
	if err != nil && !errors.Is(err, io.EOF) || len(fields) < 2 {
		return 0
	}
	ns, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	last := m.last
	m.last = time.Duration(ns)
	if first {
		return 0
	}
	return m.last - last
}

func (m *meter) close() {
	if m.f != nil {
		_ = m.f.Close() // only read
	}
}

// looker finds out where a thread of a program ran last.
type looker struct {
	mu  sync.Mutex
	tid uint32
	fd  int // of the thread's stat file; -1: none
	// ended: the mount is gone, and a talker that gets to look only now opens nothing.
	ended bool
	buf   [512]byte
}

// lastProcessor is the field of that name in proc_pid_stat(5), counted from the
// state, the first after the command's name.
const lastProcessor = 36

// processor returns it; not when another thread is just looking.
func (l *looker) processor(tid uint32) (cpu int, ok bool) {
	if !l.mu.TryLock() {
		return 0, false
	}
	defer l.mu.Unlock()
	if l.ended {
		return 0, false
	}
	if l.tid != tid {
		l.close()
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/stat", tid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, false
		}
		l.tid, l.fd = tid, fd
	}
	n, err := unix.Pread(l.fd, l.buf[:], 0)
	if err != nil {
		l.close()
		return 0, false
	}
	digits := 0
	for _, c := range after(l.buf[:n], lastProcessor) {
		if c < '0' || c > '9' || digits > 6 {
			break
		}
		cpu = cpu*10 + int(c-'0')
		digits++
	}
	return cpu, digits > 0
}

// forget closes the file.
func (l *looker) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.close()
}

// end closes the file, and no other is opened.
func (l *looker) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.close()
	l.ended = true
}

// close closes the file, with mu held.
func (l *looker) close() {
	if l.fd >= 0 {
		_ = unix.Close(l.fd) // only read
	}
	l.fd, l.tid = -1, 0
}

// after returns what follows the n-th blank after the command's name, which may
// itself hold blanks and parentheses.
func after(stat []byte, n int) []byte {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return nil
	}
	for stat = stat[i+1:]; ; n-- {
		i = bytes.IndexByte(stat, ' ')
		if i < 0 {
			return nil
		}
		if stat = stat[i+1:]; n == 0 {
			return stat
		}
	}
}
