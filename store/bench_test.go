package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/store"
)

// bigStore writes the record files of a large store: chains of ten layers,
// an image on every fifth layer, a container on every image.
func bigStore(t testing.TB, p peer, layers, images int) {
	t.Helper()
	hex := func(kind string, n int) string { return fmt.Sprintf("%s%0*x", kind, 64-len(kind), n) }
	var l, i, c []string
	for n := range layers {
		parent := ""
		if n%10 > 0 {
			parent = fmt.Sprintf(`"parent":"%s",`, hex("a", n-1))
		}
		l = append(l, fmt.Sprintf(`{"id":"%s",%s"created":"2026-01-02T03:04:05.%09dZ","compressed-diff-digest":"sha256:%s","compressed-size":%d,"diff-digest":"sha256:%s","diff-size":%d,"compression":2,"uidset":[0,33],"gidset":[0,33]}`,
			hex("a", n), parent, n, hex("c", n), n+1, hex("d", n), 2*n+1))
	}
	for n := range images {
		m := "sha256:" + hex("e", n)
		i = append(i, fmt.Sprintf(`{"id":"%s","digest":"%s","names":["docker.io/library/app%d:latest"],"layer":"%s","metadata":"{}","big-data-names":["manifest","sha256:%s"],"big-data-sizes":{"manifest":500,"sha256:%s":1000},"big-data-digests":{"manifest":"%s","sha256:%s":"sha256:%s"},"created":"2026-01-02T03:04:05.%09dZ"}`,
			hex("b", n), m, n, hex("a", n*layers/images), hex("b", n), hex("b", n), m, hex("b", n), hex("b", n), n))
		c = append(c, fmt.Sprintf(`{"id":"%s","names":["c%d"],"image":"%s","layer":"%s","metadata":"{}","created":"2026-01-02T03:04:05Z","flags":{"MountLabel":"","ProcessLabel":""}}`,
			hex("f", n), n, hex("b", n), hex("a", n*layers/images)))
	}
	for k, list := range [][]string{l, i, c} {
		path := p.file(store.Kind(k), store.Kind(k).Plural()+".json")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("["+strings.Join(list, ",")+"]"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(p.root, p.driver, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkView is a read when nothing changed: the price of every open of a
// control file.
func BenchmarkView(b *testing.B) {
	p := newPeer(b, "vfs")
	bigStore(b, p, 5000, 1000)
	s := p.open(b)
	b.ReportAllocs()
	for b.Loop() {
		view(b, s, func(tx *store.Tx) error {
			if _, err := tx.Image("docker.io/library/app77:latest"); err != nil {
				return err
			}
			return nil
		})
	}
}

// BenchmarkOpen is the opening of a store of 5,000 layers, 1,000 images and
// 1,000 containers, and one look-up; beside the peer's listing of it.
func BenchmarkOpen(b *testing.B) {
	p := newPeer(b, "vfs")
	bigStore(b, p, 5000, 1000)
	b.Run("plyfs", func(b *testing.B) {
		for b.Loop() {
			s, err := store.Open(context.Background(), store.Options{GraphRoot: p.root, RunRoot: p.run, DriverName: "vfs"})
			if err != nil {
				b.Fatal(err)
			}
			view(b, s, func(tx *store.Tx) error { _, err := tx.Layer("a0000"); _ = err; return nil })
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("containers-storage-layers", func(b *testing.B) {
		for b.Loop() {
			p.do(b, "layers")
		}
	})
}

// BenchmarkUpdate is one change of one record, saved durably.
func BenchmarkUpdate(b *testing.B) {
	p := newPeer(b, "vfs")
	bigStore(b, p, 5000, 1000)
	s := p.open(b)
	id := fmt.Sprintf("b%063x", 7)
	n := 0
	for b.Loop() {
		n++
		update(b, s, func(w *store.WriteTx) error { return w.SetMetadata(store.KindImage, id, fmt.Sprint(n)) })
	}
}

// BenchmarkReload is what a foreign change of one layer costs a process that
// has the other 4,999 in memory.
func BenchmarkReload(b *testing.B) {
	p := newPeer(b, "vfs")
	bigStore(b, p, 5000, 1000)
	s, other := p.open(b), p.open(b)
	id := fmt.Sprintf("a%063x", 7)
	n := 0
	for b.Loop() {
		n++
		b.StopTimer()
		update(b, other, func(w *store.WriteTx) error { return w.SetMetadata(store.KindLayer, id, fmt.Sprint(n)) })
		b.StartTimer()
		if _, err := s.Refresh(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMemory tells the heap that a loaded record costs.
func BenchmarkMemory(b *testing.B) {
	p := newPeer(b, "vfs")
	bigStore(b, p, 5000, 1000)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		before := heap()
		s := p.open(b)
		b.ReportMetric(float64(heap()-before)/7000, "B/record")
		runtime.KeepAlive(s)
	}
}
