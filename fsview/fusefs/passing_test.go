package fusefs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/vnode"
)

// hosted is a file whose content is that of a file of the host; offers says
// whether the next opening offers it to the kernel.
type hosted struct {
	base
	path   string
	offers func() bool
	reads  atomic.Int64
}

func (h *hosted) Attr(context.Context) (vnode.Attr, error) {
	st, err := os.Stat(h.path)
	if err != nil {
		return vnode.Attr{}, err
	}
	return regular(h.Ino(), uint64(st.Size())), nil
}

func (h *hosted) Open(context.Context, int) (vnode.Handle, error) {
	f, err := os.Open(h.path)
	return &hostedHandle{h, f}, err
}

type hostedHandle struct {
	*hosted
	f *os.File
}

func (h *hostedHandle) Flags() vnode.OpenFlags { return vnode.KeepCache }
func (h *hostedHandle) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	h.reads.Add(1)
	n, err := h.f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}
func (h *hostedHandle) Release(context.Context) error { return h.f.Close() }
func (h *hostedHandle) Backing() (*os.File, error) {
	if !h.offers() {
		return nil, nil
	}
	return os.Open(h.path)
}

// readThrough opens a file of a mount that this process serves and reads it from off.
// Not by package os: that asks epoll about what it opens, a POLL that the server must
// answer while the runtime does not know that the thread waits.
func readThrough(path string, off int64, n int) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	got := make([]byte, n)
	k, err := unix.Pread(fd, got, off)
	return got[:max(k, 0)], errors.Join(err, unix.Close(fd))
}

// servedHosted serves one such file, and skips where the kernel has no passthrough.
func servedHosted(t *testing.T, offers func() bool) (path string, data []byte, h *hosted, s *Server) {
	t.Helper()
	data = bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	h = &hosted{base: base{name: "f"}, path: filepath.Join(t.TempDir(), "backing"), offers: offers}
	if err := os.WriteFile(h.path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	dir, s := mounted(t, newDir("/", &calls{}, map[string]vnode.Node{"f": h}), Options{})
	if s.passing.kernel == nil {
		t.Skip("this kernel passes no files through")
	}
	return filepath.Join(dir, "f"), data, h, s
}

// What is offered is read without asking, also when it is read again, and changed
// meanwhile; and is let go of.
func TestKernelReadsByItself(t *testing.T) {
	t.Parallel()
	path, data, h, s := servedHosted(t, func() bool { return true })
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if k := s.Stats().Passed; k != 1 {
		t.Errorf("%d files are passed, want 1", k)
	}
	for range 2 {
		if got, err := readThrough(path, 0, len(data)+1); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
	}
	if err := os.WriteFile(h.path, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(h.path); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 100)
	if k, err := unix.Pread(fd, got, 0); err != nil || string(got[:k]) != "changed" {
		t.Errorf("an open file reads %.20q, %v after a change", got, err)
	}
	if n := h.reads.Load(); n != 0 {
		t.Errorf("%d READs for a file that the kernel reads", n)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	for s.Stats().Handles > 0 {
		time.Sleep(time.Millisecond)
	}
	if k := s.Stats().Passed; k != 0 {
		t.Errorf("%d files are passed after the last was closed", k)
	}
}

// Whatever each opening offers, the file opens and reads: the first of those that
// are open together decides for all.
func TestPassedAndAskedForTogether(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	path, data, _, s := servedHosted(t, func() bool { return n.Add(1)%3 != 0 })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if got, err := readThrough(path, 4099, 5000); err != nil || !bytes.Equal(got, data[4099:9099]) {
					t.Errorf("read %d bytes, %v", len(got), err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n.Load() == 0 || s.counts[opOpen].count.Load() != 800 {
		t.Errorf("%d offers, %d opens", n.Load(), s.counts[opOpen].count.Load())
	}
}

// refusing is a kernel that takes no backing file.
type refusing struct {
	no    syscall.Errno
	asked int
}

func (r *refusing) RegisterBackingFd(*fuse.BackingMap) (int32, syscall.Errno) {
	r.asked++
	return 0, r.no
}
func (r *refusing) UnregisterBackingFd(int32) syscall.Errno { return syscall.EINVAL }

// Who may not pass files (a user namespace's root) is told so once, and is asked
// for all of them; a filesystem that cannot be passed decides for its files only.
func TestNotPassed(t *testing.T) {
	t.Parallel()
	for no, want := range map[syscall.Errno]int{syscall.EPERM: 1, syscall.ELOOP: 3} {
		k := &refusing{no: no}
		s := New(newDir("/", &calls{}, nil), Options{})
		s.passing.kernel, s.passing.open = k, map[*inode]*backing{}
		offered := 0
		h := &hosted{base: base{name: "f"}, path: filepath.Join(t.TempDir(), "f"), offers: func() bool { offered++; return true }}
		if err := os.WriteFile(h.path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			in := &inode{}
			how, _ := s.acquire(in, &hostedHandle{hosted: h})
			again, _ := s.acquire(in, &hostedHandle{hosted: h})
			if how != asking || again != asking {
				t.Errorf("%v: passed all the same: %d, %d", no, how, again)
			}
			s.passing.release(in, how)
			s.passing.release(in, again)
		}
		if k.asked != want || offered != want || len(s.passing.open) != 0 {
			t.Errorf("%v: asked %d times, offered %d times, want %d; %d left", no, k.asked, offered, want, len(s.passing.open))
		}
	}
}
