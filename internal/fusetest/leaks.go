package fusetest

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"

	"github.com/plyfs/plyfs/internal/spread"
)

// settle is how long leftovers may take to go away by themselves.
const settle = 10 * time.Second

// keepEnv names the folder for what outlives a run of tests: the one for
// temporary files before Main made its own.
const keepEnv = "PLYFS_TEST_KEEP"

// Main runs the tests of m, apart (see Apart), and returns the exit status: 1
// when something is left although all tests passed. Use it as
//
//	func TestMain(m *testing.M) { os.Exit(fusetest.Main(m)) }
func Main(m *testing.M) int {
	if os.Getenv(childEnv) != "" {
		return m.Run()
	}
	if err := Apart(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		return 1
	}
	// A folder of this process's own: what is mounted below it is ours.
	keep := os.TempDir()
	tmp, err := os.MkdirTemp("", "fusetest-")
	if err == nil {
		err = errors.Join(os.Chmod(tmp, 0o755), os.Setenv("TMPDIR", tmp), os.Setenv(keepEnv, keep))
	}
	_ = spread.Dirs(tmp) // where there is nothing like it, nothing is lost
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: a folder for the tests:", err)
		return 1
	}
	// The first to ask for signals starts a goroutine that never ends. It may be
	// the fuzz engine; it is to be there before anything is counted.
	first := make(chan os.Signal, 1)
	signal.Notify(first, syscall.SIGWINCH)
	signal.Stop(first)
	before := take()
	code := m.Run()
	if left := before.wait(); code == 0 && len(left) > 0 {
		fmt.Fprintf(os.Stderr, "FAIL: the tests left behind:\n\t%s\n", strings.Join(left, "\n\t"))
		code = 1
	}
	if err := os.Remove(tmp); err != nil && code == 0 { // not RemoveAll: a mount may be below
		fmt.Fprintln(os.Stderr, "FAIL: the tests left files behind:", err)
		code = 1
	}
	return code
}

// NoLeaks fails t at its end when it leaves something. For packages that use
// Main, and not for tests that run in parallel with others: theirs would count.
func NoLeaks(t testing.TB) {
	t.Helper()
	before := take()
	t.Cleanup(func() {
		if left := before.wait(); len(left) > 0 {
			t.Errorf("left behind:\n\t%s", strings.Join(left, "\n\t"))
		}
	})
}

// snapshot is what a process holds.
type snapshot struct {
	mounts, fds, procs map[string]bool
	goroutines         int
}

func take() snapshot {
	return snapshot{mounts: mounts(), fds: descriptors(), procs: children(), goroutines: runtime.NumGoroutine()}
}

// wait compares until nothing is left or settle is over.
func (s snapshot) wait() []string {
	end := time.Now().Add(settle)
	for {
		left := s.left()
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
		runtime.GC() // closes files that only a finalizer knows of: they are not leaks of this process
		time.Sleep(20 * time.Millisecond)
	}
}

func (s snapshot) left() []string {
	var left []string
	for _, c := range []struct {
		what        string
		before, now map[string]bool
	}{{"mount", s.mounts, mounts()}, {"descriptor", s.fds, descriptors()}, {"process", s.procs, children()}} {
		for k := range c.now {
			if !c.before[k] {
				left = append(left, c.what+" "+k)
			}
		}
	}
	sort.Strings(left)
	if n := runtime.NumGoroutine(); n > s.goroutines {
		buf := make([]byte, 1<<20)
		left = append(left, fmt.Sprintf("%d goroutines more than before:\n%s", n-s.goroutines, buf[:runtime.Stack(buf, true)]))
	}
	return left
}

// mounts returns the mount points below the folder for temporary files.
func mounts() map[string]bool {
	set := map[string]bool{}
	tmp, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil {
		tmp = os.TempDir()
	}
	all, err := mountinfo.GetMounts(mountinfo.PrefixFilter(tmp))
	if err != nil {
		set["(mountinfo cannot be read: "+err.Error()+")"] = true
	}
	for _, m := range all {
		if m.Mountpoint != tmp {
			set[m.FSType+" at "+m.Mountpoint] = true
		}
	}
	return set
}

// descriptors returns what this process has open, but the runtime's own.
func descriptors() map[string]bool {
	set := map[string]bool{}
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		set["(/proc/self/fd cannot be read: "+err.Error()+")"] = true
	}
	for _, n := range names {
		target, err := os.Readlink("/proc/self/fd/" + n.Name())
		if err != nil || strings.HasPrefix(target, "anon_inode:[event") || strings.HasSuffix(target, "/fd") || strings.HasPrefix(target, "anon_inode:[pidfd]") {
			continue
		}
		set[n.Name()+" → "+target] = true
	}
	return set
}

// children returns this process's direct children, dead ones too.
func children() map[string]bool {
	set := map[string]bool{}
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		for _, pid := range strings.Fields(string(b)) {
			cmd, err := os.ReadFile("/proc/" + pid + "/cmdline")
			if err != nil {
				continue
			}
			set[pid+" "+strings.ReplaceAll(string(cmd), "\x00", " ")] = true
		}
	}
	return set
}
