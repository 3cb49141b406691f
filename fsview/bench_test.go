package fsview_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

// bigStore writes the records of n layers, in chains of four, and an image on
// each chain, and opens them without a driver: what is measured is the tree.
func bigStore(b *testing.B, n int) *fsview.FS {
	b.Helper()
	dir := b.TempDir()
	var layers, images []map[string]any
	for i := range n {
		id := fmt.Sprintf("%064x", i+1)
		l := map[string]any{"id": id, "created": "2024-01-02T03:04:05.678Z", "diff-digest": "sha256:" + id, "diff-size": 1024}
		if i%4 > 0 {
			l["parent"] = fmt.Sprintf("%064x", i)
		}
		layers = append(layers, l)
		if i%4 == 3 {
			images = append(images, map[string]any{"id": id, "layer": id, "created": "2024-01-02T03:04:05.678Z",
				"names": []string{fmt.Sprintf("docker.io/library/image%d:latest", i)}, "digest": "sha256:" + id})
		}
	}
	for kind, records := range map[string]any{"layers": layers, "images": images} {
		raw, err := json.Marshal(records)
		if err != nil {
			b.Fatal(err)
		}
		path := filepath.Join(dir, "root", "vfs-"+kind)
		if err := os.MkdirAll(path, 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, kind+".json"), raw, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	s, err := store.Open(context.Background(), store.Options{GraphRoot: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), DriverName: "vfs"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	f, err := fsview.New(fsview.Options{Store: s, Trees: dirTrees{}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := f.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return f
}

// BenchmarkReadAttribute is open, read and close of one file of one of 500
// images, with its look-ups.
func BenchmarkReadAttribute(b *testing.B) {
	f := bigStore(b, 2000)
	ctx := context.Background()
	path := fmt.Sprintf("images/by-id/%064x/digest", 4)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := fsview.ReadFile(ctx, f.Root(), path, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkListLong is `ls -l layers` of 2,000.
func BenchmarkListLong(b *testing.B) {
	f := bigStore(b, 2000)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := fsview.List(ctx, f.Root(), "layers"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFind is a visit of every listed control file of the store, tree/
// and diff/ left out; it reports the time an entry.
func BenchmarkFind(b *testing.B) {
	f := bigStore(b, 2000)
	ctx := context.Background()
	entries := 0
	for b.Loop() {
		n, err := countEntries(ctx, f.Root())
		if err != nil {
			b.Fatal(err)
		}
		entries += n
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(entries), "ns/entry")
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapInuse)/(1<<20), "heap-MiB")
}

func countEntries(ctx context.Context, n vnode.Node) (int, error) {
	d, ok := n.(vnode.Directory)
	if !ok {
		return 0, nil
	}
	des, err := d.ReadDir(ctx)
	if err != nil {
		return 0, err
	}
	total := len(des)
	for _, de := range des {
		if de.Name == "tree" || de.Name == "diff" {
			continue
		}
		c, err := d.Lookup(ctx, de.Name)
		if err != nil {
			return 0, err
		}
		if _, err := c.Node.Attr(ctx); err != nil {
			return 0, err
		}
		more, err := countEntries(ctx, c.Node)
		if err != nil {
			return 0, err
		}
		total += more
	}
	return total, nil
}

// BenchmarkIndex is what the first look-up after a change of the store costs
// beside the store's own reload.
func BenchmarkIndex(b *testing.B) {
	for _, n := range []int{500, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := bigStore(b, n)
			for b.Loop() {
				f.DropIndex()
				if _, err := fsview.Walk(context.Background(), f.Root(), "layers/by-id/x", false); err == nil {
					b.Fatal("found what is not there")
				}
			}
		})
	}
}
