package bridgebench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const childEnv = "BRIDGEBENCH_CHILD"

// TestMain makes the test binary its own client: see client.
func TestMain(m *testing.M) {
	if job := os.Getenv(childEnv); job != "" {
		if err := client(job, os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// client does job count times on path and prints nanoseconds a time.
func client(job, path, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	buf := make([]byte, 100)
	start := time.Now()
	for range n {
		switch job {
		case "lstat":
			var st unix.Stat_t
			err = unix.Lstat(path, &st)
		case "cat":
			err = cat(path, buf)
		case "walk":
			err = filepath.WalkDir(path, func(p string, _ os.DirEntry, err error) error {
				var st unix.Stat_t
				return errors.Join(err, unix.Lstat(p, &st))
			})
		}
		if err != nil {
			return err
		}
	}
	fmt.Println(time.Since(start).Nanoseconds() / int64(n))
	return nil
}

func cat(path string, buf []byte) error {
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	n, err := unix.Read(fd, buf)
	if err == nil && string(buf[:n]) != content {
		err = fmt.Errorf("%s holds %q", path, buf[:n])
	}
	return errors.Join(err, unix.Close(fd))
}

func runClient(tb testing.TB, job, path string, count int) float64 {
	tb.Helper()
	cmd := exec.Command(os.Args[0], path, strconv.Itoa(count))
	cmd.Env = append(os.Environ(), childEnv+"="+job)
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("%s: %v: %s", job, err, out)
	}
	ns, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		tb.Fatal(err)
	}
	return ns
}

func needFuse(tb testing.TB) {
	tb.Helper()
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		tb.Skipf("needs /dev/fuse: %v", err)
	} else if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
	if os.Getuid() != 0 {
		tb.Skip("mounts directly and drops the kernel's caches: needs root")
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

type mounter func(dir string, t tree, v valid) (*fuse.Server, error)

func mounters() map[string]mounter {
	return map[string]mounter{
		"bridge": mountBridge,
		"raw":    func(dir string, t tree, v valid) (*fuse.Server, error) { return mountRaw(dir, newRaw(t, v)) },
	}
}

func mountFor(tb testing.TB, m mounter, t tree, v valid) (string, func()) {
	tb.Helper()
	dir := tb.TempDir()
	s, err := m(dir, t, v)
	if err != nil {
		tb.Fatal(err)
	}
	return dir, func() {
		if err := s.Unmount(); err != nil {
			tb.Error(err)
		}
		s.Wait()
	}
}

// BenchmarkBridge walks 200,000 files through each server.
func BenchmarkBridge(b *testing.B) {
	needFuse(b)
	big := tree{2000, 100}
	forever := valid{time.Hour, time.Hour}
	for name, m := range mounters() {
		b.Run("memory/"+name, func(b *testing.B) {
			for b.Loop() {
				memory(b, m, big, forever)
			}
		})
		for job, v := range map[string]valid{"lstat": {time.Hour, 0}, "cat": forever} {
			b.Run(job+"/"+name, func(b *testing.B) {
				dir, unmount := mountFor(b, m, big, v)
				defer unmount()
				for b.Loop() {
					var before, after runtime.MemStats
					runtime.ReadMemStats(&before)
					const n = 30000
					b.ReportMetric(runClient(b, job, dir+"/d000007/f000003", n), "ns/request")
					runtime.ReadMemStats(&after)
					b.ReportMetric(float64(after.Mallocs-before.Mallocs)/n, "mallocs/request")
				}
			})
		}
	}
}

func memory(b *testing.B, m mounter, t tree, v valid) {
	dir, unmount := mountFor(b, m, t, v)
	defer unmount()
	runClient(b, "lstat", dir, 1)
	base := heap()
	n := float64(t.dirs + t.dirs*t.files)
	b.ReportMetric(runClient(b, "walk", dir, 1)/n, "ns/walked")
	b.ReportMetric((float64(heap())-float64(base))/n, "B/inode")
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
		b.Fatal(err)
	}
	// FORGETs are sent as slabs are freed: wait until the heap is flat.
	last := heap()
	for range 50 {
		time.Sleep(100 * time.Millisecond)
		now := heap()
		if now >= last {
			break
		}
		last = now
	}
	b.ReportMetric((float64(last)-float64(base))/n, "B/forgotten")
}

// TestBothServeTheSameTree keeps the two prototypes honest.
func TestBothServeTheSameTree(t *testing.T) {
	needFuse(t)
	for name, m := range mounters() {
		t.Run(name, func(t *testing.T) {
			dir, unmount := mountFor(t, m, tree{3, 4}, valid{time.Hour, time.Hour})
			defer unmount()
			out, err := exec.Command("sh", "-c", "cd $0 && find . | wc -l; cat d000002/*; ls d000001/nothing 2>/dev/null || echo none", dir).Output()
			if want := "16\n" + strings.Repeat(content, 4) + "none\n"; err != nil || string(out) != want {
				t.Errorf("got %q, %v; want %q", out, err, want)
			}
		})
	}
}

// TestIncEpoch is the experiment on FUSE_NOTIFY_INC_EPOCH (-8 in go-fuse's
// table, 8 on the wire): one write to the connection lets go of every cached
// name at once. The connection is opened here, since go-fuse has no method.
func TestIncEpoch(t *testing.T) {
	needFuse(t)
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	mine, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Close(mine); err != nil {
			t.Error(err)
		}
	}()
	dir := t.TempDir()
	opts := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)
	if err := unix.Mount("bridgebench", dir, "fuse.bridgebench", unix.MS_NOSUID|unix.MS_NODEV, opts); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	r := newRaw(tree{2, 2}, valid{time.Hour, time.Hour})
	s, err := fuse.NewServer(r, fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve()
	asked := func() uint64 {
		before := r.asked.Load()
		runClient(t, "lstat", dir+"/d000001/f000001", 1)
		return r.asked.Load() - before
	}
	if first, again := asked(), asked(); first != 2 || again != 0 {
		t.Fatalf("names are not cached: %d LOOKUPs, then %d", first, again)
	}
	// struct fuse_out_header: len, error (the notification's code), unique 0.
	note := []byte{16, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	_, err = unix.Write(mine, note)
	if errors.Is(err, syscall.EINVAL) {
		t.Skip("this kernel has no FUSE_NOTIFY_INC_EPOCH (it came with 6.16)")
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := asked(); n != 2 {
		t.Errorf("%d LOOKUPs after the epoch was raised, want 2", n)
	}
	if n := asked(); n != 0 {
		t.Errorf("%d LOOKUPs after that, want 0", n)
	}
}
