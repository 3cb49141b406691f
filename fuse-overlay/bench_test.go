package fuseoverlay

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/vnode"
)

// benchTree is a tree of 8,000 files of 5,000 bytes in 110 directories, spread
// over the layers.
func benchTree(b *testing.B, layers, files int) *Tree {
	b.Helper()
	d := layerDirs(b, layers)
	for i := range files {
		put(b, d[i%layers], map[string]string{fmt.Sprintf("d%d/e%d/f%d", i%10, i/10%11, i): strings.Repeat("x", 5000)})
	}
	tr := openTree(b, 0, d...)
	b.Cleanup(func() { check(b, tr.Close()) })
	return tr
}

// visit lists, looks up and stats everything below dir, and calls f on files.
func visit(b *testing.B, dir vnode.Directory, keep *[]vnode.Node, f func(vnode.Opener)) int {
	ctx := context.Background()
	list, err := dir.ReadDir(ctx)
	check(b, err)
	n := len(list)
	for _, e := range list {
		c, err := dir.Lookup(ctx, e.Name)
		check(b, err)
		if _, err := c.Node.Attr(ctx); err != nil {
			b.Fatal(err)
		}
		if keep != nil {
			*keep = append(*keep, c.Node)
		}
		switch node := c.Node.(type) {
		case vnode.Directory:
			n += visit(b, node, keep, f)
		case vnode.Opener:
			f(node)
		}
	}
	return n
}

// cpu is the process's time on processors, which other work on the machine
// disturbs less than the clock.
func cpu(b *testing.B) int64 {
	var u unix.Rusage
	check(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkTree walks (list, look up, stat) and reads a tree in process, and
// tells what the nodes of a walk weigh.
func BenchmarkTree(b *testing.B) {
	for _, layers := range []int{1, 4, 20} {
		tr := benchTree(b, layers, 8000)
		root := tr.Root().(vnode.Directory)
		b.Run(fmt.Sprintf("walk/layers=%d", layers), func(b *testing.B) {
			b.ReportAllocs()
			n, start := 0, cpu(b)
			for b.Loop() {
				n += visit(b, root, nil, func(vnode.Opener) {})
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/file")
			b.ReportMetric(float64(cpu(b)-start)/float64(n), "cpu-ns/file")
		})
		b.Run(fmt.Sprintf("read/layers=%d", layers), func(b *testing.B) {
			n, buf := 0, make([]byte, 8192)
			for b.Loop() {
				visit(b, root, nil, func(f vnode.Opener) {
					h, err := f.Open(b.Context(), 0)
					check(b, err)
					m, err := h.ReadAt(b.Context(), buf, 0)
					check(b, err)
					n += m
					check(b, h.Release(b.Context()))
				})
			}
			b.SetBytes(int64(n) / int64(b.N))
		})
		b.Run(fmt.Sprintf("memory/layers=%d", layers), func(b *testing.B) {
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				keep := make([]vnode.Node, 0, 10000)
				visit(b, root, &keep, func(vnode.Opener) {})
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/float64(len(keep)), "B/node")
				runtime.KeepAlive(keep)
			}
		})
	}
}
