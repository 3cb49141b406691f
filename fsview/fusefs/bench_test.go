package fusefs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/vnode"
)

// objects is a directory of n directories that hold until the store changes.
type objects struct {
	base
	n       int
	lookups atomic.Int64
}

func (o *objects) Attr(context.Context) (vnode.Attr, error) {
	return vnode.Attr{Ino: o.Ino(), Mode: syscall.S_IFDIR | 0o755, Nlink: 2}, nil
}

func (o *objects) Lookup(_ context.Context, name string) (vnode.Child, error) {
	o.lookups.Add(1)
	return vnode.Child{Node: &object{base: base{name: name}}, Entry: vnode.ValidStore, Attr: vnode.ValidStore}, nil
}

func (o *objects) ReadDir(context.Context) ([]vnode.Dirent, error) {
	out := make([]vnode.Dirent, o.n)
	for i := range out {
		name := fmt.Sprintf("object-%04d", i)
		out[i] = vnode.Dirent{Name: name, Ino: inoOf(name), Type: syscall.S_IFDIR}
	}
	return out, nil
}

// object holds one attribute file, id.
type object struct{ base }

func (o *object) Attr(context.Context) (vnode.Attr, error) {
	return vnode.Attr{Ino: o.Ino(), Mode: syscall.S_IFDIR | 0o755, Nlink: 2}, nil
}
func (o *object) Lookup(context.Context, string) (vnode.Child, error) {
	return vnode.Child{Node: &text{base: base{name: o.name + "/id"}, c: &calls{}, value: o.name}, Entry: vnode.ValidStore, Attr: vnode.ValidStore}, nil
}
func (o *object) ReadDir(context.Context) ([]vnode.Dirent, error) { return nil, nil }

// BenchmarkMount measures 2,000 objects through a mount, by programs in other
// processes, with epochs and with zero validity. The warm figures are what the
// kernel's cache is for; cold is after a change of the store.
func BenchmarkMount(b *testing.B) {
	for _, noEpoch := range []bool{false, true} {
		root := &objects{base: base{name: "root"}, n: 2000}
		dir, s := mounted(b, root, Options{NoEpoch: noEpoch})
		name := fmt.Sprintf("epochs=%v/", !noEpoch)
		ls := func() { fusetest.Must(b, `ls -l "$1" > /dev/null`, dir) }
		b.Run(name+"ls-l-2000-warm", func(b *testing.B) {
			ls()
			for b.Loop() {
				ls()
			}
			b.ReportMetric(float64(root.lookups.Swap(0))/float64(b.N+1), "lookups/op")
		})
		b.Run(name+"ls-l-2000-after-change", func(b *testing.B) {
			gen := uint64(b.N) * 1e9
			for b.Loop() {
				gen++
				if err := s.Invalidate(b.Context(), gen); err != nil {
					b.Fatal(err)
				}
				ls()
			}
		})
		b.Run(name+"open-read-close", func(b *testing.B) {
			r := fusetest.Child(b, "TestReaderChild", "READ="+filepath.Join(dir, "object-0007/id"))
			var ns float64
			if _, err := fmt.Sscanf(r.Out, "=== RUN   TestReaderChild\n%f ns", &ns); err != nil {
				b.Fatal(err, r.Out)
			}
			b.ReportMetric(ns, "ns/open+read+close")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// TestReaderChild opens, reads and closes a file many times and prints the
// time of one.
func TestReaderChild(t *testing.T) {
	path := os.Getenv("READ")
	if path == "" {
		t.Skip("runs as a child of BenchmarkMount")
	}
	r := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			if _, err := os.ReadFile(path); err != nil {
				b.Fatal(err)
			}
		}
	})
	fmt.Printf("%d ns\n", r.NsPerOp())
}

// BenchmarkInvalidate measures one announcement with 2,000 inodes whose
// attributes the kernel believes.
func BenchmarkInvalidate(b *testing.B) {
	root := &objects{base: base{name: "root"}, n: 2000}
	dir, s := mounted(b, root, Options{})
	gen := uint64(0)
	for b.Loop() {
		b.StopTimer()
		fusetest.Must(b, `ls -l "$1" > /dev/null`, dir)
		b.StartTimer()
		gen++
		if err := s.Invalidate(b.Context(), gen); err != nil {
			b.Fatal(err)
		}
	}
}

// An inode costs at most 1 KiB of our memory, nodes of a plain kind included.
func TestMemoryOfAnInode(t *testing.T) {
	const n = 100_000
	tab := newTable(newDir("/", &calls{}, nil))
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range n {
		tab.look(&object{base{name: fmt.Sprint("n", i)}}, 1)
	}
	used := (heap() - before) / n
	t.Logf("%d bytes an inode", used)
	if used > 1024 {
		t.Errorf("%d bytes an inode, over 1024", used)
	}
	for i := range n {
		tab.forget(uint64(i+2), 1)
	}
	if tab.len() != 1 {
		t.Errorf("%d inodes left", tab.len())
	}
	if left := (int64(heap()) - int64(before)) / n; left > 16 {
		t.Errorf("%d bytes an inode are not given back", left)
	}
	runtime.KeepAlive(tab)
}
