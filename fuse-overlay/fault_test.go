package fuseoverlay

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/safefs"
)

// faults lets system calls of a server fail, one at a time: the server is a child
// whose calls a seccomp filter shows to the test first (seccomp_unotify(2)).
type faults struct {
	mu   sync.Mutex
	want func(nr int32) unix.Errno // which calls are counted, and how they fail; guarded by mu, as all below
	seen []int32                   // those since then
	at   int                       // the one of them that fails, the first is 1
	how  unix.Errno                // how it failed; 0: it did not come
}

// What calls of the server do. Numbers that the unix package does not know are the
// attributes' of Linux 6.13.
const (
	setxattrat = iota + 463
	getxattrat
	listxattrat
	removexattrat
)

var (
	changing = []int32{
		unix.SYS_MKDIRAT, unix.SYS_MKNODAT, unix.SYS_LINKAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_UNLINKAT, unix.SYS_SYMLINKAT,
		unix.SYS_FCHMODAT, unix.SYS_FCHMOD, unix.SYS_FCHMODAT2, unix.SYS_FCHOWNAT, unix.SYS_FCHOWN, unix.SYS_UTIMENSAT,
		unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR, setxattrat,
		unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR, removexattrat,
		unix.SYS_COPY_FILE_RANGE, unix.SYS_PWRITE64, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_FSYNC, unix.SYS_SYNC_FILE_RANGE,
	}
	looking = []int32{
		unix.SYS_STATX, unix.SYS_FSTAT, unix.SYS_GETDENTS64, unix.SYS_READLINKAT, unix.SYS_GETXATTR, unix.SYS_LGETXATTR, unix.SYS_FGETXATTR, getxattrat,
		unix.SYS_LISTXATTR, unix.SYS_LLISTXATTR, unix.SYS_FLISTXATTR, listxattrat,
	}
	opening = []int32{unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_FCNTL}
	records = []int32{unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR, setxattrat}
)

// filterOf has seccomp do what action says of the calls, and lets others pass.
func filterOf(action uint32, calls ...int32) *unix.SockFprog {
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // the call's number
	for _, nr := range calls {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(nr)},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	return &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
}

// setFilter is seccomp(2).
func setFilter(flags uintptr, p *unix.SockFprog) (int, error) {
	fd, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(p)))
	if e != 0 {
		return -1, e
	}
	return int(fd), nil
}

// under starts cmd so that its calls can fail.
func (f *faults) under(cmd *exec.Cmd) error {
	var filter int
	ready, started := make(chan error), make(chan error, 1)
	go func() { // on a thread that ends with it, since it has the filter for good
		runtime.LockOSThread()
		var err error
		filter, err = setFilter(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, filterOf(unix.SECCOMP_RET_USER_NOTIF, slices.Concat(changing, looking, opening)...))
		ready <- err
		if err == nil {
			started <- cmd.Start()
		}
	}()
	if err := <-ready; err != nil {
		return err
	}
	go f.answer(filter)
	return <-started
}

// seccompNotif and seccompAnswer are the kernel's seccomp_notif and seccomp_notif_resp.
type seccompNotif struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type seccompAnswer struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

// answer answers for as long as there is a process with the filter.
func (f *faults) answer(filter int) {
	for {
		p := []unix.PollFd{{Fd: int32(filter), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err != nil && !errors.Is(err, unix.EINTR) || p[0].Revents == unix.POLLHUP {
			_ = unix.Close(filter)
			return
		}
		var n seccompNotif
		if p[0].Revents&unix.POLLIN == 0 || notifIoctl(filter, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)) != 0 {
			continue
		}
		a := seccompAnswer{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if e := f.fails(&n); e != 0 {
			a.flags, a.errno = 0, -int32(e)
		}
		notifIoctl(filter, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&a)) // fails when the process is gone
	}
}

func notifIoctl(filter int, what uintptr, p unsafe.Pointer) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(filter), what, uintptr(p))
	return e
}

// fails says how a call is to fail, 0: not.
func (f *faults) fails(n *seccompNotif) unix.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.want == nil || n.nr == unix.SYS_FCNTL && n.args[1] != unix.F_DUPFD_CLOEXEC {
		return 0
	}
	e := f.want(n.nr)
	if e == 0 {
		return 0
	}
	if f.seen = append(f.seen, n.nr); len(f.seen) == f.at {
		f.how = e
		return e
	}
	return 0
}

// during has the call number at of those that want says an error for fail while do is
// at work, and returns which it was, and how it failed.
func (f *faults) during(at int, want func(nr int32) unix.Errno, do func()) (nr int32, how unix.Errno) {
	f.mu.Lock()
	f.want, f.seen, f.at, f.how = want, nil, at, 0
	f.mu.Unlock()
	do()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.want = nil
	if f.how == 0 {
		return 0, 0
	}
	return f.seen[at-1], f.how
}

// TestRemoveDeep: a tree that is deeper than files may be open is removed, also where
// directories cannot be moved with the promise that nothing is replaced.
func TestRemoveDeep(t *testing.T) {
	t.Parallel()
	if r := fusetest.Child(t, "TestRemoveDeepChild", "REMOVE_DEEP=1"); r.Status != 0 {
		t.Errorf("%s\n%s", r.Out, r.Err)
	}
}

// TestRemoveDeepChild is the child of TestRemoveDeep.
func TestRemoveDeepChild(t *testing.T) {
	if os.Getenv("REMOVE_DEEP") == "" {
		t.Skip("runs as a child of TestRemoveDeep")
	}
	dir := t.TempDir()
	top, err := safefs.OpenRoot(dir)
	check(t, err)
	defer func() { check(t, top.Close()) }()
	check(t, top.Mkdir("deep", 0o700))
	d, err := top.OpenDir("deep")
	check(t, err)
	for range 200 {
		check(t, d.Mkdir("d", 0o700))
		check(t, d.Mknod("f", unix.S_IFREG|0o600, 0))
		next, err := d.OpenDir("d")
		check(t, err)
		check(t, d.Close())
		d = next
	}
	check(t, d.Close())
	check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: 100}))
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Skipf("no filter: %v", err)
	}
	if _, err := setFilter(unix.SECCOMP_FILTER_FLAG_TSYNC, filterOf(unix.SECCOMP_RET_ERRNO|uint32(unix.EINVAL), unix.SYS_RENAMEAT2)); err != nil {
		t.Skipf("no filter: %v", err)
	}
	check(t, removeTree(top, "deep"))
	if left := namesIn(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
