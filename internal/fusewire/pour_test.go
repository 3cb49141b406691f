package fusewire

import (
	"bytes"
	"errors"
	"io"
	"log"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// sink is a file that WRITE writes to.
type sink struct {
	*content
	how    atomic.Int32 // what WriteFrom does
	tries  atomic.Int64 // that came to nothing
	turn   atomic.Int64
	poured atomic.Int64
	read   atomic.Int64 // WRITEs whose data was read
}

// sinkPiece is how much a sink has moved at a time.
const sinkPiece = 100_000

const (
	pours = iota
	poursPart
	refuses
	fails
	cannotAlways
	cannot // every second one
)

func (k *sink) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	k.read.Add(1)
	n, err := k.file.WriteAt(data, int64(in.Offset))
	return uint32(n), fuse.ToStatus(err)
}

func (k *sink) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Ino, out.Mode, out.Nlink = in.NodeId, syscall.S_IFREG|0o644, 1
	return fuse.OK
}

func (k *sink) WriteFrom(in *fuse.WriteIn, move func(fd int, off int64, most int) (int, error)) (uint32, fuse.Status, bool) {
	switch k.how.Load() {
	case refuses:
		return 0, fuse.OK, false
	case fails:
		return 0, fuse.Status(unix.ENOSPC), true
	case cannotAlways:
		return k.refused(in, move)
	case cannot:
		if k.turn.Add(1)%2 == 0 {
			return k.refused(in, move)
		}
	}
	k.poured.Add(1)
	total := 0
	for total < int(in.Size) {
		n, err := move(int(k.file.Fd()), int64(in.Offset)+int64(total), sinkPiece)
		if err != nil || n == 0 || n > sinkPiece {
			return uint32(total), fuse.EIO, true
		}
		if total += n; k.how.Load() == poursPart {
			break
		}
	}
	return uint32(total), fuse.OK, true
}

// refused tries a file that splice(2) refuses: one to append to.
func (k *sink) refused(in *fuse.WriteIn, move func(fd int, off int64, most int) (int, error)) (uint32, fuse.Status, bool) {
	k.tries.Add(1)
	f, err := os.OpenFile(k.file.Name(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return 0, fuse.EIO, true
	}
	defer func() { _ = f.Close() }() // only to be refused
	if n, err := move(int(f.Fd()), 0, int(in.Size)); n != 0 || !errors.Is(err, unix.EINVAL) {
		return 0, fuse.EIO, true
	}
	return 0, fuse.OK, false
}

// newSink mounts a sink, whose file is named f there, until end.
func newSink(t *testing.T) (k *sink, dir string, end func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mount(2) of FUSE needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	k, dir = &sink{content: &content{RawFileSystem: fuse.NewDefaultRawFileSystem(), file: file}}, t.TempDir()
	s, err := shown(k, dir, &fuse.MountOptions{Name: "fusewire-test", MaxWrite: 1 << 19, MaxBackground: 12, DirectMount: true, Logger: log.New(io.Discard, "", 0)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { s.Serve(); close(ended) }()
	end = sync.OnceFunc(func() {
		unmounted(t, dir, ended)
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return k, dir, end
}

// TestPourRefused: a filesystem that takes no data from pipes is not asked again and
// again.
func TestPourRefused(t *testing.T) {
	k, dir, end := newSink(t)
	source := filepath.Join(t.TempDir(), "source")
	for round, how := range []int32{cannotAlways, pours} {
		k.how.Store(how)
		want := bytes.Repeat([]byte{byte('a' + round), 'b', 'c'}, 7<<20)
		if err := os.WriteFile(source, want, 0o600); err != nil {
			t.Fatal(err)
		}
		fusetest.Must(t, "dd if=$1 of=$2/f bs=1M conv=notrunc status=none; cmp $1 $3", source, dir, k.file.Name())
	}
	if k.tries.Load() != refusedAlways || k.poured.Load() > 0 {
		t.Errorf("%d WRITEs were tried in vain, and %d from pipes", k.tries.Load(), k.poured.Load())
	}
	end()
}

// WRITEs in a row, whose data a filesystem takes from pipes, does not take, fails to
// take or cannot, put into the file what was written; nothing is left in a pipe.
func TestPour(t *testing.T) {
	before := openPipes(t)
	k, dir, end := newSink(t)
	source := filepath.Join(t.TempDir(), "source")
	for round, how := range []int32{pours, refuses, cannot, fails, pours, fails, poursPart, refuses, pours} {
		k.how.Store(how)
		want := bytes.Repeat([]byte{byte('a' + round), 'b', 'c'}, 3<<20)
		if err := os.WriteFile(source, want, 0o600); err != nil {
			t.Fatal(err)
		}
		r := fusetest.Script(t, "dd if=$1 of=$2/f bs=1M conv=notrunc status=none", source, dir)
		got, err := os.ReadFile(k.file.Name())
		if err != nil {
			t.Fatal(err)
		}
		if how == fails {
			if r.Status == 0 {
				t.Error("a failed write is not told")
			}
		} else if r.Status != 0 || !bytes.Equal(got, want) {
			t.Errorf("round %d: status %d %s, the same data: %v", round, r.Status, r.Err, bytes.Equal(got, want))
		}
	}
	if k.poured.Load() == 0 || k.read.Load() == 0 {
		t.Errorf("%d WRITEs from pipes, %d read", k.poured.Load(), k.read.Load())
	}
	end()
	if after := openPipes(t); after != before {
		t.Errorf("%d descriptors of pipes, %d before", after, before)
	}
}
