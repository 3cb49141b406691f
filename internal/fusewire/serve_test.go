package fusewire

import (
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

func TestMain(m *testing.M) { os.Exit(fusetest.Main(m)) }

// tree answers look-ups: names that begin with "d" are directories, "wait" is
// one that is answered when it is told or interrupted, others are not there.
type tree struct {
	fuse.RawFileSystem
	idle    atomic.Int64 // look-ups that a thread of SCHED_IDLE was given
	asked   atomic.Int64
	waiter  atomic.Int32 // the thread that answers "wait"
	cut     atomic.Int64 // of those, interrupted ones
	made    atomic.Int64 // mkdir
	altered atomic.Int64 // of those, what a thread of SCHED_IDLE was given
	release chan struct{}
	deaf    atomic.Bool // "wait" is not interrupted
}

func (f *tree) String() string { return "fusewire-test" }

func (f *tree) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	f.asked.Add(1)
	if policy(0) == unix.SCHED_IDLE {
		f.idle.Add(1)
	}
	switch {
	case strings.HasPrefix(name, "d"):
		out.NodeId, out.Mode, out.Nlink = 2, syscall.S_IFDIR|0o755, 1
		return fuse.OK
	case name == "wait":
		f.waiter.Store(int32(unix.Gettid()))
		if f.deaf.Load() {
			cancel = nil
		}
		select {
		case <-f.release:
		case <-cancel:
			f.cut.Add(1)
			return fuse.EINTR
		}
	}
	return fuse.ENOENT
}

func (f *tree) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Ino, out.Mode, out.Nlink = in.NodeId, syscall.S_IFDIR|0o755, 1
	return fuse.OK
}

func (f *tree) Mkdir(<-chan struct{}, *fuse.MkdirIn, string, *fuse.EntryOut) fuse.Status {
	f.made.Add(1)
	if policy(0) == unix.SCHED_IDLE {
		f.altered.Add(1)
	}
	return fuse.EPERM
}

func policy(tid int) int {
	p, _, no := unix.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, uintptr(tid), 0, 0)
	if no != 0 {
		return -int(no)
	}
	return int(p)
}

// shown is New, and the mount is seen.
func shown(fs fuse.RawFileSystem, dir string, o *fuse.MountOptions) (*Server, error) {
	s, err := New(fs, dir, o)
	if err == nil {
		err = s.Show()
	}
	return s, err
}

// maker mounts and begins to serve.
type maker func(fuse.RawFileSystem, string, *fuse.MountOptions) (*Server, error)

// attached is New of a mount that was there before.
func attached(fs fuse.RawFileSystem, dir string, o *fuse.MountOptions) (*Server, error) {
	fd, err := mount(dir, o)
	if err != nil {
		return nil, err
	}
	return Attach(fs, fd, o)
}

// serve mounts a tree; the test's end unmounts it.
func serve(t *testing.T) (*tree, *Server, string) {
	t.Helper()
	f, s, dir, _ := serveUntil(t, shown)
	return f, s, dir
}

// unmounted unmounts dir and waits until its server, which closes ended then,
// has ended.
func unmounted(t *testing.T, dir string, ended <-chan struct{}) {
	t.Helper()
	fusetest.Script(t, "umount $1 2>/dev/null || umount -l $1 2>/dev/null || true", dir)
	<-ended
}

// serveUntil is serve; served is closed when Serve has returned.
func serveUntil(t *testing.T, begin maker) (_ *tree, _ *Server, dir string, served <-chan struct{}) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mount(2) of FUSE needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	f := &tree{RawFileSystem: fuse.NewDefaultRawFileSystem(), release: make(chan struct{})}
	dir = t.TempDir()
	s, err := begin(f, dir, &fuse.MountOptions{Name: "fusewire-test", MaxWrite: 1 << 17, MaxBackground: 12, DirectMount: true, Logger: log.New(io.Discard, "", 0)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { s.Serve(); close(ended) }()
	t.Cleanup(func() {
		unmounted(t, dir, ended)
		if st := s.InodeNotifyStoreCache(1, 0, []byte("text")); st != fuse.EBADF {
			t.Errorf("contents after the end: %v", st)
		}
		if st := s.InodeNotify(1, 0, 0); st != fuse.EBADF {
			t.Errorf("a notice after the end: %v", st)
		}
		// The talker's thread ends with it, a while later, but for the process's first,
		// which the runtime keeps and never uses again.
		for _, tid := range threads(t) {
			for tid != os.Getpid() && policy(tid) == unix.SCHED_IDLE {
				time.Sleep(time.Millisecond)
			}
		}
	})
	return f, s, dir, ended
}

// threads are those of this process.
func threads(t *testing.T) (tids []int) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(filepath.Base(task))
		if err != nil {
			t.Fatal(err)
		}
		tids = append(tids, tid)
	}
	return tids
}

// stats runs a shell that looks for n names that are not there.
func stats(t *testing.T, dir string, n int) {
	t.Helper()
	fusetest.Must(t, `i=0; while [ $i -lt $2 ]; do [ ! -e $1/x$i ] || exit 1; i=$((i+1)); done`, dir, strconv.Itoa(n))
}

// atRest waits until there is no dialogue.
func atRest(t *testing.T, s *Server) {
	t.Helper()
	for s.talk.guarding.Load() {
		time.Sleep(time.Millisecond)
	}
	if p := s.talk.phase.Load(); p != parked && p != ended {
		t.Errorf("nobody guards phase %d", p)
	}
}

// dialogue makes requests until one was answered in a dialogue.
func dialogue(t *testing.T, f *tree, s *Server, dir string) {
	t.Helper()
	if !s.talk.able.Load() {
		t.Skip("no dialogues: one processor, or no /proc/self/schedstat")
	}
	for end := time.Now().Add(time.Minute); f.idle.Load() == 0; {
		if time.Now().After(end) {
			t.Fatalf("%d look-ups, %d dialogues, none of them answered there", f.asked.Load(), s.talk.talks.Load())
		}
		stats(t, dir, 2000)
	}
}

func TestServes(t *testing.T) {
	_, s, dir := serve(t)
	fusetest.Must(t, `[ -d $1/d ] && [ ! -e $1/x ]`, dir)
	if s.KernelSettings().Minor == 0 {
		t.Error("the kernel's version is not known")
	}
	if st := s.InodeNotify(1, -1, 0); !st.Ok() {
		t.Errorf("a notice: %v", st)
	}
	if st := s.InodeNotifyStoreCache(1234, 0, []byte("text")); st != fuse.ENOENT {
		t.Errorf("contents of an inode that the kernel does not know: %v", st)
	}
	if no := s.UnregisterBackingFd(77); no == 0 {
		t.Error("a file that was never registered could be taken away")
	}
}

// A mount that is there already: the talker answers look-ups, and never what changes
// something, though one program asks for both in turn.
func TestAttached(t *testing.T) {
	f, s, dir, _ := serveUntil(t, attached)
	dialogue(t, f, s, dir)
	f.idle.Store(0)
	for tries := 0; tries < 50 && f.idle.Load() < 100; tries++ {
		fusetest.Must(t, `perl -e 'for (1..1000) { -e "$ARGV[0]/x$_"; mkdir "$ARGV[0]/y$_" if $_ % 4 == 0 }' $1`, dir)
	}
	if f.made.Load() == 0 || f.altered.Load() != 0 {
		t.Errorf("of %d mkdirs the talker answered %d", f.made.Load(), f.altered.Load())
	}
	atRest(t, s)
}

func TestDialogueEndsAsItBegan(t *testing.T) {
	f, s, dir := serve(t)
	dialogue(t, f, s, dir)
	atRest(t, s)
	stats(t, dir, 100)
	atRest(t, s)
}

// hogs runs two programs a processor that never sleep, until the test's end.
func hogs(t *testing.T) {
	t.Helper()
	for range 2 * runtime.NumCPU() {
		cmd := exec.Command("sh", "-c", "while :; do :; done")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // killed
		})
	}
}

// A request that is never answered keeps nobody waiting, whoever has read it.
func TestBlockedRequest(t *testing.T) {
	f, s, dir := serve(t)
	for i := range 5 {
		dialogue(t, f, s, dir)
		f.idle.Store(0)
		f.waiter.Store(0)
		cmd := exec.Command("sh", "-c", `i=0; while [ $i -lt $2 ]; do [ ! -e $1/x$i ] || exit 1; i=$((i+1)); done; [ ! -e $1/wait ]`, "sh", dir, strconv.Itoa(300*i))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for f.waiter.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		stats(t, dir, 200)
		atRest(t, s)
		tid := int(f.waiter.Load())
		if p := policy(tid); p == unix.SCHED_IDLE && s.talk.lifts.Load() {
			t.Error("the thread of a slow request is left with the policy of a dialogue")
		}
		f.release <- struct{}{}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// Programs that want all processors come into a dialogue and stay: everything
// is answered, and the talker is not left to itself.
func TestStarved(t *testing.T) {
	f, s, dir := serve(t)
	dialogue(t, f, s, dir)
	hogs(t)
	stats(t, dir, 300)
	fusetest.Must(t, `for p in 1 2 3; do
	( i=0; while [ $i -lt 100 ]; do [ ! -e $1/x$p-$i ] || exit 1; i=$((i+1)); done ) &
	pids="$pids $!"
done
for p in $pids; do wait $p || exit 1; done`, dir)
	atRest(t, s)
}

// The same where the talker may never leave SCHED_IDLE, as an ordinary user's.
func TestStarvedForGood(t *testing.T) {
	r := fusetest.Script(t, `command -v setpriv >/dev/null || exit 77
exec setpriv --bounding-set=-sys_nice --inh-caps=-sys_nice "$1" -test.run='^(TestStarved|TestBlockedRequest|TestDialogue.*)$' -test.v`, fusetest.Exe(t))
	if r.Status == 77 || os.Geteuid() != 0 {
		t.Skip("without root or setpriv the capability cannot be dropped: TestStarved is that test for users")
	}
	if r.Status != 0 {
		t.Errorf("status %d: %s%s", r.Status, r.Out, r.Err)
	}
}

func TestManyAskAtOnce(t *testing.T) {
	f, s, dir := serve(t)
	fusetest.Must(t, `for p in 1 2 3 4 5 6; do
	( i=0; while [ $i -lt 500 ]; do [ ! -e $1/x$p-$i ] || exit 1; i=$((i+1)); done ) &
	pids="$pids $!"
done
for p in $pids; do wait $p || exit 1; done`, dir)
	if f.asked.Load() < 3000 {
		t.Errorf("%d look-ups of 3000 came", f.asked.Load())
	}
	atRest(t, s)
}

func TestInterrupt(t *testing.T) {
	f, s, dir := serve(t)
	cmd := exec.Command("sh", "-c", `i=0; while [ $i -lt 200 ]; do [ ! -e $1/x$i ]; i=$((i+1)); done; [ -e $1/wait ]`, "sh", dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for f.waiter.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for f.cut.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	atRest(t, s)
}

// A connection that is cut while a request is at work: it is interrupted, and
// Serve ends.
func TestCutConnection(t *testing.T) {
	f, s, dir := serve(t)
	cmd := exec.Command("sh", "-c", `[ -e $1/wait ]`, "sh", dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for f.waiter.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	_ = unix.Unmount(dir, unix.MNT_FORCE) // cuts the connection first, then is refused: the mount is in use
	_ = cmd.Wait()                        // fails with ENOTCONN, or ECONNABORTED
	for f.cut.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	s.loops.Wait()
}

func TestNothingToMountOn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mount(2) of FUSE needs root")
	}
	before := descriptors(t)
	if _, err := New(&tree{RawFileSystem: fuse.NewDefaultRawFileSystem()}, filepath.Join(t.TempDir(), "none"), &fuse.MountOptions{Name: "x", DirectMount: true}); err == nil {
		t.Fatal("mounted on nothing")
	}
	if _, err := New(&tree{RawFileSystem: fuse.NewDefaultRawFileSystem()}, t.TempDir(), &fuse.MountOptions{Name: "x", DirectMount: true, Options: []string{"nosuchoption"}}); err == nil {
		t.Fatal("mounted with an unknown option")
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, before %d", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && to == "/dev/fuse" {
			n++
		}
	}
	return n
}

func TestLooker(t *testing.T) {
	stat := "7 (a) b (c) S 1 2 3"
	for n, want := range []string{"S", "1", "2", "3"} {
		if got := string(after([]byte(stat), n)); !strings.HasPrefix(got, want) {
			t.Errorf("field %d is %q", n, got)
		}
	}
	for _, s := range []string{"", ")", "7 (x", stat} {
		if got := after([]byte(s), 9); got != nil {
			t.Errorf("%q has a field 9: %q", s, got)
		}
	}
	l := looker{fd: -1}
	defer l.close()
	for range 3 {
		cpu, ok := l.processor(uint32(os.Getpid()))
		var all unix.CPUSet
		if err := unix.SchedGetaffinity(0, &all); err != nil {
			t.Fatal(err)
		}
		if !ok || !all.IsSet(cpu) {
			t.Errorf("processor %d, %v", cpu, ok)
		}
	}
	if _, ok := l.processor(1 << 30); ok {
		t.Error("a thread that does not exist has a processor")
	}
	// A talker may look after the mount's end: nobody would close what it opens.
	l.end()
	if _, ok := l.processor(uint32(os.Getpid())); ok || l.fd >= 0 {
		t.Errorf("looked after the end: descriptor %d", l.fd)
	}
}

func TestMeter(t *testing.T) {
	if !accounted() {
		t.Skip("the kernel does not tell how long threads wait for their turn")
	}
	var m meter
	defer m.close()
	for range 3 {
		if d := m.delay(os.Getpid()); d < 0 {
			t.Errorf("a delay of %v", d)
		}
	}
	var none meter
	if d := none.delay(0) + none.delay(1<<30); d != 0 {
		t.Errorf("no thread waited %v", d)
	}
}

// Pauses grow from one dialogue that ended badly to the next, to a bound.
func TestPauses(t *testing.T) {
	for _, c := range []struct {
		w     verdict
		lifts bool
		first time.Duration
		bound time.Duration
	}{
		{crowd, false, pauseFirst, pauseCrowd}, {slow, true, pauseFirst, pauseCrowd},
		{starved, true, pauseFirst, pauseLifted}, {starved, false, pauseHelpless, pauseLongest},
	} {
		p := &talk{pause: pauseFirst, start: time.Now()}
		p.lifts.Store(c.lifts)
		var last time.Duration
		for i := range 20 {
			before := p.now()
			p.rest(c.w, 0)
			got := time.Duration(p.quiet.Load() - before)
			if i == 0 && got < c.first || got < last || p.pause > c.bound {
				t.Fatalf("%+v: pause %d is %v after %v", c, i, got, last)
			}
			last = min(got, c.bound)
		}
		if p.pause != c.bound {
			t.Errorf("%+v: %v at the end", c, p.pause)
		}
		if p.rest(quiet, healthy+1); p.pause != pauseFirst {
			t.Errorf("%+v: %v after a good one", c, p.pause)
		}
	}
}

func TestOptionsForFusermount(t *testing.T) {
	got := helpedOptions(&fuse.MountOptions{Options: []string{"default_permissions", `a=b,c\d`}, AllowOther: true, FsName: "x,y", Name: "z", MaxWrite: 4096})
	if want := `default_permissions,a=b\,c\\d,allow_other,fsname=x\,y,subtype=z,max_read=4096`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
