package conformance

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stressTime is how long each of the stresses lasts: 7 s, with PLYFS_LONG 200,
// which is ten minutes for the three of them, or what PLYFS_STRESS says.
func stressTime(t *testing.T) time.Duration {
	t.Helper()
	if s := os.Getenv("PLYFS_STRESS"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			t.Fatalf("PLYFS_STRESS is %q, which is no time such as 90s", s)
		}
		return d
	}
	if os.Getenv("PLYFS_LONG") != "" {
		return 200 * time.Second
	}
	return 7 * time.Second
}

// stressWorlds are ours and, when there is time, what the stress is proved by.
func stressWorlds(t *testing.T) []world {
	var ws []world
	for _, w := range rootWorlds(t) {
		ours := strings.HasPrefix(w.name, "fuse-overlay-")
		if ours && w.layers == 1 || os.Getenv("PLYFS_LONG") != "" && (w.name == "directory" || w.name == "kernel-1") {
			ws = append(ws, w)
		}
	}
	return ws
}

func stress(t *testing.T, lower, run func(e *env, end time.Time)) {
	need(t)
	long := stressTime(t)
	for _, w := range stressWorlds(t) {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, w)
			lower(e, time.Time{})
			t.Cleanup(e.unmount)
			e.mount()
			s := serverOf(t, e.root)
			run(e, time.Now().Add(long))
			s.check(e)
			sameAfterRemount(e)
		})
	}
}

// TestFsx has several writers, each with a file of its own and a model of it.
func TestFsx(t *testing.T) {
	const files = 4
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	all := make([]*fsx, files)
	var mu sync.Mutex
	byEnv := map[*env][]*fsx{}
	stress(t, func(e *env, _ time.Time) {
		fs := make([]*fsx, len(all))
		for i := range fs {
			fs[i] = &fsx{e: e, rnd: rand.New(rand.NewPCG(seed, uint64(i))), path: e.p(fmt.Sprint("d/f", i))}
			e.mkdir(e.l("d"))
			if i%2 == 0 {
				e.ok(fs[i].lowerFile(e.l(fmt.Sprint("d/f", i)), 300000))
			}
		}
		mu.Lock()
		byEnv[e] = fs
		mu.Unlock()
	}, func(e *env, end time.Time) {
		mu.Lock()
		fs := byEnv[e]
		mu.Unlock()
		var wg sync.WaitGroup
		for _, f := range fs {
			wg.Go(func() {
				n, err := f.run(end)
				if err != nil {
					e.Error(err)
				}
				e.Logf("%s: %d steps", filepath.Base(f.path), n)
			})
		}
		wg.Wait()
	})
}

// TestTrees unpacks, lists, copies, moves and removes trees in parallel.
func TestTrees(t *testing.T) {
	const script = `cd "$1"; id=$2
while [ "$(date +%s)" -lt "$3" ]; do
	mkdir "t$id" && tar -C "t$id" -xf "$4" || exit 1
	n=$(find "t$id" | wc -l); [ "$n" = "$5" ] || { echo "find lists $n of $5"; exit 1; }
	cp -a "t$id" "c$id" && diff -r "t$id" "c$id" || exit 1
	mv "c$id" "t$id/inside" || exit 1
	find "t$id" -type f -name '*a*' -exec chmod 600 {} + || exit 1
	rm -r "t$id" || exit 1
	mkdir -p "low/w$id"; ls -R low > /dev/null; echo "$id" >> "low/x$id/f"; rm -rf "low/w$id"
done`
	stress(t, func(e *env, _ time.Time) {
		for i := range 200 {
			e.put(e.dir+"/src/"+fmt.Sprintf("d%d/e%d/a%d", i%7, i%3, i), strings.Repeat(fmt.Sprint(i), i*20))
		}
		e.ok(exec.Command("tar", "-C", e.dir+"/src", "-cf", e.dir+"/src.tar", ".").Run())
		for i := range 4 {
			e.put(e.l(fmt.Sprintf("low/x%d/f", i)), "x")
		}
	}, func(e *env, end time.Time) {
		out, err := exec.Command("find", e.dir+"/src").Output()
		e.ok(err)
		entries := strings.Count(string(out), "\n")
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				out, err := exec.Command("bash", "-c", script, "trees", e.root, fmt.Sprint(i), fmt.Sprint(end.Unix()), e.dir+"/src.tar", fmt.Sprint(entries)).CombinedOutput()
				if err != nil {
					e.Errorf("%v: %s", err, out)
				}
			})
		}
		wg.Wait()
		e.list(e.root, "low")
	})
}

// stressors of stress-ng that work on files; those that need another
// filesystem's ioctls, or fill the disk, are left out.
const stressors = "access chdir chmod chown dentry dir dirdeep dup fallocate fault fcntl file-ioctl filename flock fstat getdent handle hdd inode-flags link lease locka lockf lockofd mknod open rename seek symlink sync-file unlink utime xattr"

// TestStressNG runs stress-ng's stressors on the mount.
func TestStressNG(t *testing.T) {
	if _, err := exec.LookPath("stress-ng"); err != nil {
		t.Skipf("stress-ng is not installed: %v", err)
	}
	help, err := exec.Command("stress-ng", "--help").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	var known []string
	for s := range strings.FieldsSeq(stressors) {
		if strings.Contains(string(help), "--"+s+" N") {
			known = append(known, s)
		}
	}
	stress(t, func(e *env, _ time.Time) { e.put(e.l("d/f"), "x") }, func(e *env, end time.Time) {
		each := max(time.Until(end)/time.Duration(len(known)), 200*time.Millisecond)
		for _, s := range known {
			args := []string{"--" + s, "2", "--timeout", "30", "--temp-path", e.root, "--quiet", "--verify", "--hdd-bytes", "8m", "--fallocate-bytes", "8m"}
			cmd := exec.Command("stress-ng", args...)
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			e.ok(cmd.Start())
			timer := time.AfterFunc(each, func() { _ = cmd.Process.Signal(unix.SIGINT) })
			err := cmd.Wait()
			timer.Stop()
			// 4: a stressor that this machine has not what for.
			if code := cmd.ProcessState.ExitCode(); err != nil && code != 4 {
				e.Errorf("%s: %v: %s", s, err, out.String())
			}
		}
		e.list(e.p("d"), "f")
	})
}

// server is the process behind a mount.
type server struct{ pid, fds int }

// serverOf finds the process that serves the mount on root; nil for the
// kernel's.
func serverOf(t *testing.T, root string) *server {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		b, err := os.ReadFile(p)
		if err != nil || !strings.HasSuffix(string(b), root+"\x00") || !strings.Contains(string(b), "lowerdir=") {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(p, "/")[2])
		if err != nil {
			t.Fatal(err)
		}
		s := &server{pid: pid}
		s.fds = s.open(t)
		return s
	}
	return nil
}

func (s *server) open(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.pid))
	if err != nil {
		t.Fatalf("the server has died: %v", err)
	}
	return len(d)
}

// memory is the server's resident set in KiB.
func (s *server) memory(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.pid))
	if err != nil {
		t.Fatalf("the server has died: %v", err)
	}
	n, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return n * os.Getpagesize() / 1024
}

// numbers asks the server, which writes them to the log in its work directory,
// how many descriptors it keeps and how many goroutines it has.
func (s *server) numbers(e *env) (cached, goroutines int) {
	e.Helper()
	log := filepath.Join(e.work, "fuse-overlay.log")
	e.ok(unix.Kill(s.pid, unix.SIGUSR1))
	for range 6000 {
		b, err := os.ReadFile(log)
		if err == nil && strings.Contains(string(b), "\ndegraded ") {
			for line := range strings.Lines(string(b)) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
				switch n, _ := strconv.Atoi(value); key {
				case "descriptors":
					cached = n
				case "goroutines":
					goroutines = n
				}
			}
			return cached, goroutines
		}
		time.Sleep(10 * time.Millisecond)
	}
	e.Fatalf("the server writes no numbers to %s", log)
	return 0, 0
}

// check fails e when the server holds more than its caches may. The race
// detector's own memory is up to ten times that of the program.
func (s *server) check(e *env) {
	e.Helper()
	if s == nil {
		return
	}
	t := e.T
	cached, goroutines := s.numbers(e)
	fds, kib := s.open(t), s.memory(t)
	t.Logf("the server has %d descriptors (%d at the start), %d of them cached, %d goroutines and %d KiB", fds, s.fds, cached, goroutines, kib)
	// A few readers, and what they use, come and go.
	if fds-cached > s.fds+32 || goroutines > 128 {
		t.Errorf("%d descriptors of which %d are cached, %d at the start; %d goroutines", fds, cached, s.fds, goroutines)
	}
	most := 512 << 10
	if raced(t, s.pid) {
		most *= 10
	}
	if kib > most {
		t.Errorf("the server uses %d KiB", kib)
	}
}

// sameAfterRemount compares the tree with itself after a remount, and with
// what the kernel's overlay shows of the same layers.
func sameAfterRemount(e *env) {
	e.Helper()
	if e.w.layers == 0 {
		return
	}
	show := func() string {
		out, err := exec.Command("sh", "-c", `cd "$1" && find . -printf '%p %y %m %U:%G %s %T@ %l\n' | sed 's/^\(\S* d \S* \S*\) [0-9]*/\1/' | sort; find . -type f | sort | xargs -r -d '\n' md5sum`, "sh", e.root).CombinedOutput()
		if err != nil {
			e.Errorf("%v: %s", err, out)
		}
		return string(out)
	}
	before := show()
	e.remount()
	if after := show(); after != before {
		e.Errorf("before a remount:\n%.2000s\nafter:\n%.2000s", before, after)
	}
	e.unmount()
	end := kernelMount(e)
	defer end()
	if after := show(); after != before {
		e.Errorf("ours:\n%.2000s\non the kernel's overlay:\n%.2000s", before, after)
	}
}
