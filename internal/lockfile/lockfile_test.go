package lockfile_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/lockfile"
)

const childEnv = "PLYFS_LOCKFILE_TEST_CHILD"

func TestMain(m *testing.M) {
	if arg := os.Getenv(childEnv); arg != "" {
		os.Exit(hold(arg))
	}
	os.Exit(m.Run())
}

// hold takes a classic POSIX lock ("w:" or "r:" + path) or one of ours with a
// side record ("o:" + path), says so and keeps it until stdin ends.
func hold(arg string) int {
	kind, path, _ := strings.Cut(arg, ":")
	if kind == "o" {
		f := lockfile.New(path, lockfile.Options{SideDir: filepath.Dir(path)})
		h, err := f.Lock(context.Background(), "child's work")
		if err != nil {
			return 1
		}
		defer h.Unlock() //nolint:errcheck // the process ends
	} else {
		fd, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return 1
		}
		lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
		if kind == "r" {
			lk.Type = unix.F_RDLCK
		}
		if err := unix.FcntlFlock(fd.Fd(), unix.F_SETLKW, &lk); err != nil {
			return 1
		}
	}
	if _, err := os.Stdout.WriteString("held\n"); err != nil {
		return 1
	}
	io.Copy(io.Discard, os.Stdin) //nolint:errcheck // until it ends
	return 0
}

type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
}

func startHolder(t *testing.T, kind, path string) *child {
	t.Helper()
	c := &child{cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), childEnv+"="+kind+":"+path)
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("child: %q, %v", line, err)
	}
	return c
}

func (c *child) end(t *testing.T) {
	t.Helper()
	if err := c.in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestConflictsWithPosixLocks(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		theirs      string
		write, pass bool
	}{{"w", true, false}, {"w", false, false}, {"r", true, false}, {"r", false, true}} {
		path := filepath.Join(t.TempDir(), "x.lock")
		f := lockfile.New(path, lockfile.Options{Timeout: 30 * time.Millisecond})
		c := startHolder(t, tc.theirs, path)
		h, err := take(f, tc.write)
		if tc.pass != (err == nil) {
			t.Fatalf("%+v: %v", tc, err)
		}
		if err == nil {
			err = h.Unlock()
			if err != nil {
				t.Fatal(err)
			}
		} else if !errors.Is(err, errno.ErrTimeout) {
			t.Fatalf("%+v: %v, want a time-out", tc, err)
		}
		holder, held, err := f.Holder()
		if err != nil || !held || holder.PID != c.cmd.Process.Pid || holder.Write != (tc.theirs == "w") {
			t.Fatalf("holder %+v %v %v, want pid %d", holder, held, err, c.cmd.Process.Pid)
		}
		c.end(t)
		if h, err = take(f, true); err != nil {
			t.Fatalf("after its end: %v", err)
		}
		if err := h.Unlock(); err != nil {
			t.Fatal(err)
		}
	}
}

func take(f *lockfile.File, write bool) (*lockfile.Held, error) {
	if write {
		return f.Lock(context.Background(), "test")
	}
	return f.RLock(context.Background())
}

func TestSideRecordNamesOurs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.lock")
	c := startHolder(t, "o", path)
	f := lockfile.New(path, lockfile.Options{Timeout: 20 * time.Millisecond, SideDir: filepath.Dir(path)})
	_, err := f.Lock(context.Background(), "mine")
	if !errors.Is(err, errno.ErrTimeout) || !strings.Contains(err.Error(), "child's work") {
		t.Fatalf("error %v does not name the holder's work", err)
	}
	holder, held, err := f.Holder()
	if err != nil || !held || holder.PID != c.cmd.Process.Pid || holder.What != "child's work" {
		t.Fatalf("holder %+v %v %v", holder, held, err)
	}
	c.end(t)
	if _, held, err = f.Holder(); err != nil || held {
		t.Fatalf("still held: %v %v", held, err)
	}
}

// TestMutualExclusion increments a plain file's number from goroutines with
// two File values (as two processes have): none may be lost.
func TestMutualExclusion(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.lock")
	files := []*lockfile.File{lockfile.New(path, lockfile.Options{}), lockfile.New(path, lockfile.Options{})}
	var inside atomic.Int32
	var readers atomic.Int32
	n := 0
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for range 40 {
				h, err := files[g%2].Lock(context.Background(), "count")
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 || readers.Load() != 0 {
					t.Error("not alone under the write lock")
				}
				n++
				inside.Add(-1)
				if err := h.Unlock(); err != nil {
					t.Error(err)
				}
				r, err := files[g%2].RLock(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				readers.Add(1)
				if inside.Load() != 0 {
					t.Error("a writer beside a reader")
				}
				readers.Add(-1)
				if err := r.Unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n != 8*40 {
		t.Fatalf("%d of %d increments", n, 8*40)
	}
}

func TestContextEndsWait(t *testing.T) {
	t.Parallel()
	f := lockfile.New(filepath.Join(t.TempDir(), "x.lock"), lockfile.Options{})
	h, err := f.Lock(context.Background(), "first")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { _, err := f.Lock(ctx, "second"); done <- err }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled wait: %v", err)
	}
	if err := h.Unlock(); err != nil {
		t.Fatal(err)
	}
	if h, err = f.Lock(context.Background(), "third"); err != nil {
		t.Fatal(err)
	}
	if err := h.Unlock(); err != nil {
		t.Fatal(err)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.lock")
	f := lockfile.New(path, lockfile.Options{})
	if tok, err := f.Token(); err != nil || !tok.IsZero() {
		t.Fatalf("missing file: %v %v", tok, err)
	}
	seen := map[lockfile.Token]bool{}
	for range 50 {
		h, err := f.Lock(context.Background(), "touch")
		if err != nil {
			t.Fatal(err)
		}
		tok, err := h.Touch()
		if err != nil || seen[tok] {
			t.Fatalf("token %v repeated or %v", tok, err)
		}
		seen[tok] = true
		if got, err := h.Token(); err != nil || got != tok {
			t.Fatalf("held reads %v, %v", got, err)
		}
		if err := h.Unlock(); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Token(); err != nil || got != tok {
			t.Fatalf("reads %v, %v", got, err)
		}
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() != lockfile.TokenSize || fi.Mode().Perm() != 0o644 {
		t.Fatalf("lock file %v, %v", fi, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if tok, err := f.Token(); err != nil || !tok.IsZero() {
		t.Fatalf("removed file: %v %v", tok, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRemovedFile: a lock on a file that lost its name guards nothing, so the
// next taker must make the file anew.
func TestRemovedFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.lock")
	f := lockfile.New(path, lockfile.Options{Timeout: time.Second})
	h, err := f.Lock(context.Background(), "first")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other := lockfile.New(path, lockfile.Options{Timeout: time.Second})
	h2, err := other.Lock(context.Background(), "second")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.Unlock(), h2.Unlock()); err != nil {
		t.Fatal(err)
	}
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := lockfile.New(filepath.Join(dir, "x.lock"), lockfile.Options{ReadOnly: true})
	h, err := f.RLock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Unlock(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Lock(context.Background(), "x"); !errors.Is(err, errno.ErrReadOnly) {
		t.Fatalf("write lock: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Fatalf("made %v, %v", entries, err)
	}
}

func BenchmarkToken(b *testing.B) {
	f := lockfile.New(filepath.Join(b.TempDir(), "x.lock"), lockfile.Options{})
	h, err := f.Lock(context.Background(), "bench")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := h.Touch(); err != nil {
		b.Fatal(err)
	}
	if err := h.Unlock(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := f.Token(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLock(b *testing.B) {
	f := lockfile.New(filepath.Join(b.TempDir(), "x.lock"), lockfile.Options{SideDir: b.TempDir()})
	for b.Loop() {
		h, err := f.Lock(context.Background(), "bench")
		if err != nil {
			b.Fatal(err)
		}
		if err := h.Unlock(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestWaiters: a process that is blocked in the kernel, and a goroutine here.
func TestWaiters(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.lock")
	f := lockfile.New(path, lockfile.Options{})
	if pids, here, err := f.Waiters(); err != nil || len(pids) != 0 || here != 0 {
		t.Errorf("a file that is not there: %v, %d, %v", pids, here, err)
	}
	held, err := f.Lock(context.Background(), "test")
	if err != nil {
		t.Fatal(err)
	}
	if pids, here, err := f.Waiters(); err != nil || len(pids) != 0 || here != 0 {
		t.Errorf("held, nobody waits: %v, %d, %v", pids, here, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	waited := make(chan error)
	go func() {
		_, err := f.Lock(ctx, "second")
		waited <- err
	}()
	for here := 0; here == 0; time.Sleep(time.Millisecond) {
		if _, here, err = f.Waiters(); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := held.Unlock(); err != nil {
		t.Fatal(err)
	}
}
