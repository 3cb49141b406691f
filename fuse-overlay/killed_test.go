package fuseoverlay

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// slowFS is a layer of a file, d/f, whose first megabyte and whose rest can be read
// once their gates are open, and of a directory, d, that can be listed once its is.
type slowFS struct {
	fuse.RawFileSystem
	size        uint64
	read, list  chan struct{} // told of reads, and of listings of d
	first, rest chan struct{}
	listing     chan struct{}
}

const (
	slowDir  = fuse.FUSE_ROOT_ID + 1
	slowFile = slowDir + 1
)

func slowName(ino uint64) string { return string("df"[ino-slowDir]) }

func (s *slowFS) attr(ino uint64) fuse.Attr {
	if ino != slowFile {
		return fuse.Attr{Ino: ino, Mode: unix.S_IFDIR | 0o755, Nlink: 2}
	}
	return fuse.Attr{Ino: ino, Mode: unix.S_IFREG | 0o644, Nlink: 1, Size: s.size, Blocks: s.size / 512}
}

func (s *slowFS) StatFs(<-chan struct{}, *fuse.InHeader, *fuse.StatfsOut) fuse.Status { return fuse.OK }

func (s *slowFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Attr = s.attr(in.NodeId)
	return fuse.OK
}

func (s *slowFS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	for id, parent := range map[uint64]uint64{slowDir: fuse.FUSE_ROOT_ID, slowFile: slowDir} {
		if h.NodeId == parent && name == slowName(id) {
			out.NodeId, out.Attr = id, s.attr(id)
			return fuse.OK
		}
	}
	return fuse.ENOENT
}

func (s *slowFS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if in.NodeId == slowDir {
		tell(s.list)
		<-s.listing
	}
	if in.NodeId != slowFile && in.Offset == 0 {
		child := in.NodeId + 1
		out.AddDirEntry(fuse.DirEntry{Name: slowName(child), Mode: s.attr(child).Mode, Ino: child, Off: 1})
	}
	return fuse.OK
}

func (s *slowFS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	tell(s.read)
	<-s.first
	if in.Offset >= 1<<20 {
		<-s.rest
	}
	clear(buf)
	return fuse.ReadResultData(buf), fuse.OK
}

func tell(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// slowRig mounts an overlay over a slowFS.
func slowRig(t *testing.T) (*rig, *slowFS) {
	t.Helper()
	r, s := slowLayer(t, 4<<20)
	open(s.listing)
	return r.start(), s
}

// slowLayer has a slowFS as the lower layer, whose file has that size.
func slowLayer(t *testing.T, size uint64) (*rig, *slowFS) {
	t.Helper()
	r := newRig(t, "")
	s := &slowFS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(), size: size,
		read: make(chan struct{}, 1), list: make(chan struct{}, 1), first: make(chan struct{}), rest: make(chan struct{}), listing: make(chan struct{}),
	}
	srv, err := fuse.NewServer(s, r.lowers[0], &fuse.MountOptions{DirectMountStrict: true, DisableSplice: true, DisableReadDirPlus: true, FsName: "slow", Name: "slow"})
	check(t, err)
	served := make(chan struct{})
	go func() { srv.Serve(); close(served) }()
	t.Cleanup(func() { check(t, srv.Unmount()); <-served })
	check(t, srv.WaitMount())
	return r, s
}

func open(gate chan struct{}) {
	select {
	case <-gate:
	default:
		close(gate)
	}
}

// waiting starts a script in the mount, and returns once it waits for an answer.
func (r *rig) waiting(script string) *exec.Cmd {
	r.t.Helper()
	cmd := exec.Command("sh", "-c", "cd $1; exec 2>/dev/null; "+script, "sh", r.mount)
	check(r.t, cmd.Start())
	waitFor(r.t, "the kernel waits for an answer", func() bool {
		at, err := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", cmd.Process.Pid))
		return err == nil && (strings.Contains(string(at), "request_wait") || strings.Contains(string(at), "fuse"))
	})
	return cmd
}

// killed kills what waits, which is to end though the layer s says nothing.
func (r *rig) killed(what string, cmd *exec.Cmd, s *slowFS) {
	r.t.Helper()
	end := make(chan struct{})
	check(r.t, cmd.Process.Kill())
	go func() { _ = cmd.Wait(); close(end) }() // killed
	select {
	case <-end:
	case <-time.After(time.Minute):
		r.t.Errorf("%s lives on after kill -9", what)
		open(s.first)
		open(s.rest)
		<-end
	}
}

// TestKilledWaitersEnd: who waits for a copy-up, its own or another's, can be
// killed.
func TestKilledWaitersEnd(t *testing.T) {
	t.Parallel()
	r, s := slowRig(t)
	defer open(s.rest)
	defer open(s.first)
	copier := r.waiting("echo x >> d/f")
	<-s.read
	r.killed("who waits for another's copy", r.waiting("exec mv d e"), s)
	check(t, copier.Process.Kill())
	waitFor(t, "the kernel has told of the kill", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", copier.Process.Pid))
		_, after, _ := strings.Cut(string(stat), ") ")
		return err == nil && strings.HasPrefix(after, "D") // it waits for the answer for good
	})
	var st unix.Statfs_t
	check(t, unix.Statfs(r.mount, &st)) // which the kernel asks for after it
	open(s.first)
	r.killed("who copies", copier, s)
	open(s.rest)
	r.do("echo x >> d/f; test $(stat -c %s d/f) = $((4 * 1024 * 1024 + 2))")
}

// TestSignalsDoNotStopCopies: a signal with a handler, during a copy-up, is no
// error of the write that waits for it.
func TestSignalsDoNotStopCopies(t *testing.T) {
	t.Parallel()
	r, s := slowRig(t)
	defer open(s.rest)
	defer open(s.first)
	thread, written := make(chan int), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		fd, err := unix.Open(filepath.Join(r.mount, "d/f"), unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0)
		thread <- unix.Gettid()
		if err == nil {
			_, err = unix.Write(fd, []byte("x\n"))
			err = errors.Join(err, unix.Close(fd))
		}
		written <- err
	}()
	tid := <-thread
	<-s.read
	for range 20 {
		check(t, unix.Tgkill(os.Getpid(), tid, syscall.SIGURG)) // the runtime handles it, with SA_RESTART
		var st unix.Statfs_t
		check(t, unix.Statfs(r.mount, &st)) // the server has read what the kernel had for it
	}
	open(s.first)
	open(s.rest)
	if err := <-written; err != nil {
		t.Errorf("write: %v", err)
	}
	r.do("test $(stat -c %s d/f) = $((4 * 1024 * 1024 + 2))")
}

func waitFor(t testing.TB, what string, is func() bool) {
	t.Helper()
	for start := time.Now(); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatalf("a minute without: %s", what)
		}
	}
}

// TestCloseDoesNotWait: the end of an overlay waits for no lower layer that does
// not answer, neither for copies nor for listings that nobody asked for; what they
// use is closed after them.
func TestCloseDoesNotWait(t *testing.T) {
	t.Parallel()
	for what, begin := range map[string]func(*Overlay, *node, *slowFS){
		"a copy": func(o *Overlay, d *node, s *slowFS) {
			f, _, err := o.lookup(t.Context(), d, "f")
			check(t, err)
			o.stageEntries([]entry{{node: f}})
			<-s.read
		},
		"a listing": func(o *Overlay, _ *node, s *slowFS) {
			o.ahead.listed = seen{last: o.root.id, row: 1} // as after a walk
			o.wasListed(o.root)
			<-s.list
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r, s := slowLayer(t, 100<<10)
			defer open(s.listing)
			defer open(s.first)
			r.config.row, r.config.patience = 1, time.Minute
			o, err := newOverlay(r.config)
			check(t, err)
			o.ahead.row, o.ahead.need = 1, 1 // also where there is one processor
			var buf [4]entry
			_, err = o.children(t.Context(), o.root, 0, buf[:])
			check(t, err)
			d, _, err := o.lookup(t.Context(), o.root, "d")
			check(t, err)
			begin(o, d, s)
			check(t, o.closeWithin(time.Millisecond))
			if o.tree.cache.Len() == 0 {
				t.Error("descriptors that are in use were closed")
			}
			if again, err := newOverlay(r.config); err == nil {
				t.Errorf("upper and work are free while a copy may be made there: %v", again.close())
			}
			open(s.first)
			open(s.listing)
			check(t, eventually(func() error {
				again, err := newOverlay(r.config)
				if err == nil {
					err = again.close()
				}
				return err
			}))
			if k := o.tree.cache.Len(); k > 0 {
				t.Errorf("%d descriptors stay", k)
			}
		})
	}
}
