package fusewire

import (
	"bytes"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// content is a file that READ is answered from.
type content struct {
	fuse.RawFileSystem
	file    *os.File
	size    uint64
	withFD  bool
	spliced atomic.Int64
	copied  atomic.Int64
	server  *Server
	// Once hold is set a READ says so in held, and waits for release.
	hold          atomic.Bool
	held, release chan struct{}
}

func (c *content) String() string { return "fusewire-content" }

func (c *content) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if name != "f" {
		return fuse.ENOENT
	}
	out.NodeId, out.Mode, out.Nlink, out.Size = 2, syscall.S_IFREG|0o644, 1, c.size
	return fuse.OK
}

func (c *content) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Ino, out.Mode, out.Nlink = in.NodeId, syscall.S_IFDIR|0o755, 1
	if in.NodeId == 2 {
		out.Mode, out.Size = syscall.S_IFREG|0o644, c.size
	}
	return fuse.OK
}

func (c *content) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.OK }

func (c *content) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	c.copied.Add(1)
	n, err := c.file.ReadAt(buf, int64(in.Offset))
	if err != nil && err != io.EOF {
		return nil, fuse.EIO
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (c *content) File(_ uint64, use func(fd int)) {
	if c.hold.CompareAndSwap(true, false) {
		c.held <- struct{}{}
		<-c.release
	}
	if c.withFD {
		c.spliced.Add(1)
		use(int(c.file.Fd()))
	}
}

// serveContent mounts a file f that has data, and size by its attributes. Its server
// takes large READs for a row however slowly they come.
func serveContent(t *testing.T, data []byte, size int, withFD bool) (*content, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mount(2) of FUSE needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	name := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	c := &content{RawFileSystem: fuse.NewDefaultRawFileSystem(), file: file, size: uint64(size), withFD: withFD,
		held: make(chan struct{}), release: make(chan struct{})}
	dir := t.TempDir()
	s, err := shown(c, dir, &fuse.MountOptions{Name: "fusewire-test", MaxWrite: 1 << 20, MaxBackground: 12, DirectMount: true, Logger: log.New(io.Discard, "", 0)})
	if err != nil {
		t.Fatal(err)
	}
	c.server = s
	s.crowd.able, s.crowd.within = s.talk.able.Load(), time.Hour
	ended := make(chan struct{})
	go func() { s.Serve(); close(ended) }()
	t.Cleanup(func() {
		unmounted(t, dir, ended)
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, filepath.Join(dir, "f")
}

// What large READs are answered with is what the file has, with and without a
// file that it can be taken from. Other processes read: who serves a mount does
// not look at it.
func TestLargeReads(t *testing.T) {
	data := make([]byte, 5<<20+777)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // never fails
	for _, withFD := range []bool{true, false} {
		c, path := serveContent(t, data, len(data), withFD)
		fusetest.Must(t, `cmp $1 $2
for at in 0 1 4095 1048575 4194304 5242000 5243656; do
	dd if=$1 bs=1M iflag=skip_bytes,direct skip=$at count=1 status=none | cksum
	dd if=$2 bs=1M iflag=skip_bytes skip=$at count=1 status=none | cksum
done | uniq -c | while read n rest; do [ $n = 2 ] || exit 1; done`, path, c.file.Name())
		if spliced := c.spliced.Load() > 0; spliced != withFD || !withFD && c.copied.Load() == 0 {
			t.Errorf("%d READs from the file and %d others", c.spliced.Load(), c.copied.Load())
		}
	}
}

// A file that is shorter than its attributes say is read as far as it goes.
func TestLargeReadOfShortFile(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 12345)
	c, path := serveContent(t, data, 4*len(data), true)
	fusetest.Must(t, "cmp -n $(stat -c %s $2) $1 $2", path, c.file.Name())
	if c.spliced.Load() == 0 {
		t.Error("no READ was answered from the file")
	}
}

// A file that cannot be read leaves nothing in the pipes, and READ is answered otherwise.
func TestLargeReadWithoutAFile(t *testing.T) {
	p, err := newPipes(pipeRoom)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if done, clean := p.answer(&fuse.ReadIn{Size: spliceLeast}, -1, -1); done || !clean {
		t.Errorf("done %v, clean %v", done, clean)
	}
	for _, fd := range []int{p.data[0], p.out[0]} {
		var b [1]byte
		if k, err := unix.Read(fd, b[:]); err != unix.EAGAIN {
			t.Errorf("%d bytes in a pipe: %v", k, err)
		}
	}
}

// Pipes are given back and closed, and those that were not emptied are not used
// again.
func TestPipes(t *testing.T) {
	var s splicer
	before := openPipes(t)
	var all []*pipes
	for range pipesKept + 2 {
		p := s.take()
		if p == nil {
			t.Fatal("no pipes")
		}
		all = append(all, p)
	}
	late := all[0]
	for _, p := range all[1:] {
		s.put(p)
	}
	if len(s.free) != pipesKept {
		t.Errorf("%d pipes are kept", len(s.free))
	}
	s.end()
	s.put(late)
	if after := openPipes(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
	s.no = true
	if s.take() != nil {
		t.Error("pipes where there can be none")
	}
}

func openPipes(t *testing.T) int {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}
