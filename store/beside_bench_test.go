package store_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/store"
)

// manyID is the ID of the nth object of a kind (a digit) in a store of makeMany.
func manyID(kind string, n int) string { return fmt.Sprintf("%s%0*x", kind, 64-len(kind), n) }

func manyLink(n int) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	b := []byte(strings.Repeat("A", 26))
	for i := 25; n > 0; i, n = i-1, n/32 {
		b[i] = alphabet[n%32]
	}
	return string(b)
}

// makeMany writes an overlay store of n layers: four fifths in chains of four,
// each with an image on top, a fifth those of containers; so n/5 images and
// n/5 containers, with all directories and big data, as the peers lay them out.
func makeMany(t testing.TB, e *lifeEnv, n int) {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	var layers, images, containers []string
	lowers := map[int]string{}
	layer := func(i, parent int, content string) {
		dir := filepath.Join(e.root, "overlay", manyID("a", i))
		for _, d := range []string{"diff", "work", "merged"} {
			must(os.MkdirAll(filepath.Join(dir, d), 0o700))
		}
		must(os.Symlink("../"+manyID("a", i)+"/diff", filepath.Join(e.root, "overlay", "l", manyLink(i))))
		must(os.WriteFile(filepath.Join(dir, "link"), []byte(manyLink(i)), 0o644))
		p := ""
		if parent >= 0 {
			lowers[i] = strings.TrimSuffix("l/"+manyLink(parent)+":"+lowers[parent], ":")
			must(os.WriteFile(filepath.Join(dir, "lower"), []byte(lowers[i]), 0o644))
			p = `"parent":"` + manyID("a", parent) + `",`
		}
		layers = append(layers, fmt.Sprintf(`{"id":"%s",%s"created":"2026-01-02T03:04:05.%09dZ"%s}`, manyID("a", i), p, i, content))
	}
	must(os.MkdirAll(filepath.Join(e.root, "overlay", "l"), 0o755))
	for i := range n * 4 / 5 {
		parent := i - 1
		if i%4 == 0 {
			parent = -1
		}
		layer(i, parent, fmt.Sprintf(`,"compressed-diff-digest":"sha256:%s","compressed-size":%d,"diff-digest":"sha256:%s","diff-size":%d,"compression":2,"uidset":[0,33],"gidset":[0,33]`, manyID("c", i), i+1, manyID("d", i), 2*i+1))
	}
	for i := range n / 5 {
		m := "sha256:" + manyID("e", i)
		images = append(images, fmt.Sprintf(`{"id":"%s","digest":"%s","names":["docker.io/library/app%d:latest"],"layer":"%s","metadata":"{}","big-data-names":["manifest"],"big-data-sizes":{"manifest":2},"big-data-digests":{"manifest":"%s"},"created":"2026-01-02T03:04:05.%09dZ"}`,
			manyID("b", i), m, i, manyID("a", i*4+3), m, i))
		dir := filepath.Join(e.root, "overlay-images", manyID("b", i))
		must(os.MkdirAll(dir, 0o700))
		must(os.WriteFile(filepath.Join(dir, "manifest"), []byte("{}"), 0o600))
		own := n*4/5 + i
		layer(own, i*4+3, "")
		containers = append(containers, fmt.Sprintf(`{"id":"%s","names":["c%d"],"image":"%s","layer":"%s","metadata":"{}","created":"2026-01-02T03:04:05Z","flags":{"MountLabel":"","ProcessLabel":""}}`,
			manyID("f", i), i, manyID("b", i), manyID("a", own)))
	}
	for kind, list := range map[string][]string{"layers": layers, "images": images, "containers": containers} {
		must(os.MkdirAll(e.kind(kind), 0o700))
		must(os.WriteFile(filepath.Join(e.kind(kind), kind+".json"), []byte("["+strings.Join(list, ",")+"]"), 0o600))
	}
}

// series are the times of one thing, and those of the other that it is
// measured beside.
type series struct{ ours, theirs []time.Duration }

func median(d []time.Duration) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2]
}

// beside takes the times of two things in turn.
func beside(rounds int, ours, theirs func()) series {
	var s series
	clock := func(fn func()) time.Duration {
		at := time.Now()
		fn()
		return time.Since(at)
	}
	for range rounds {
		s.ours, s.theirs = append(s.ours, clock(ours)), append(s.theirs, clock(theirs))
	}
	return s
}

func (s series) report(b *testing.B, what string) {
	b.Helper()
	o, t := median(s.ours), median(s.theirs)
	b.Logf("| %s | %.3g ms | %.3g ms | %.1f |", what, ms(o), ms(t), float64(t)/float64(o))
	name := strings.ReplaceAll(what, " ", "-")
	b.ReportMetric(ms(o), name+"-ms")
	b.ReportMetric(float64(t)/float64(o), name+"-x")
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// buildOurs builds our command line as it is shipped.
func buildOurs(b *testing.B) string {
	ours := filepath.Join(b.TempDir(), "containers-storage")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", ours, "../cmd/containers-storage")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return ours
}

// BenchmarkMany works on stores of 1,000, 5,000 and 20,000 layers (a fifth as
// many images and containers), in this process and with our command line, in
// turn with commands of containers-storage. Medians; the last column is how
// many times theirs takes.
func BenchmarkMany(b *testing.B) {
	needs(b, "containers-storage")
	needs(b, "go")
	ours := buildOurs(b)
	for _, n := range []int{1000, 5000, 20000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := &many{b: b, e: newLifeEnv(b, "overlay"), cli: ours, n: n}
			makeMany(b, m.e, n)
			for b.Loop() {
				m.run()
			}
			m.e.unmountAll()
		})
	}
}

// many is one size of BenchmarkMany.
type many struct {
	b   *testing.B
	e   *lifeEnv
	cli string
	n   int
}

func (m *many) ok(err error) {
	m.b.Helper()
	if err != nil {
		m.b.Fatal(err)
	}
}

// ours runs our command line.
func (m *many) ours(args ...string) {
	full := append([]string{"--graph", m.e.root, "--run", m.e.run, "--storage-driver", m.e.driver}, args...)
	out, err := output(exec.Command(m.cli, full...))
	if err != nil {
		m.b.Fatalf("%v: %v\n%s", args, err, out)
	}
}

// opened calls fn with the store, opened and closed again.
func (m *many) opened(fn func(*store.Store)) {
	s, err := store.Open(context.Background(), m.e.options())
	m.ok(err)
	fn(s)
	m.ok(s.Close())
}

func (m *many) run() {
	const name = "docker.io/library/app77:latest"
	m.e.peer("layers") // the first one makes what it misses
	beside(9, func() {
		m.opened(func(s *store.Store) {
			view(m.b, s, func(tx *store.Tx) error { _, err := tx.Image(name); return err })
		})
	}, func() { m.e.peer("image", name) }).report(m.b, "open and look up")
	for _, c := range [][]string{{"image", name}, {"layers"}, {"layers", "--json"}, {"images", "--json"}, {"containers"}, {"version"}} {
		beside(9, func() { m.ours(c...) }, func() { m.e.peer(c...) }).report(m.b, "command "+strings.ReplaceAll(strings.Join(c, " "), name, "NAME"))
	}
	m.memory()
	m.containers()
	m.foreign()
}

// memory is the heap that a long-lived process needs.
func (m *many) memory() {
	heap := func() float64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return float64(s.HeapAlloc)
	}
	before := heap()
	m.opened(func(s *store.Store) {
		view(m.b, s, func(tx *store.Tx) error { // all of it decoded, all indexes made
			tx.LayersByDigest("x")
			tx.Children("x")
			tx.ImagesByDigest("x")
			tx.ImagesOn("x")
			tx.ContainersOf("x")
			return nil
		})
		per := (heap() - before) / float64(m.n+2*m.n/5)
		m.b.Logf("| heap of a long-lived process, a record | %.3g KiB | – | – |", per/1024)
		m.b.ReportMetric(per, "B/record")
	})
}

// containers makes and deletes many, and then some with the peer's commands.
func (m *many) containers() {
	const ours, theirs = 200, 5
	ctx := context.Background()
	var s series
	for round := range 5 {
		m.opened(func(st *store.Store) {
			at := time.Now()
			ids := make([]string, ours)
			for i := range ids {
				c, err := st.CreateContainer(ctx, store.ContainerSpec{Image: manyID("b", i%100)})
				m.ok(err)
				ids[i] = c.ID
			}
			for _, id := range ids {
				m.ok(st.DeleteContainer(ctx, id))
			}
			s.ours = append(s.ours, time.Since(at)/ours)
		})
		at := time.Now()
		for i := range theirs {
			m.e.peer("create-container", "--id", fmt.Sprintf("peer%d-%d", round, i), manyID("b", i))
		}
		for i := range theirs {
			m.e.peer("delete-container", fmt.Sprintf("peer%d-%d", round, i))
		}
		s.theirs = append(s.theirs, time.Since(at)/theirs)
	}
	s.report(m.b, "create and delete a container")
}

// foreign is the price of a change that another process made.
func (m *many) foreign() {
	m.opened(func(s *store.Store) {
		m.opened(func(other *store.Store) {
			var d []time.Duration
			for i := range 9 {
				update(m.b, other, func(w *store.WriteTx) error {
					return w.SetMetadata(store.KindLayer, manyID("a", 7), fmt.Sprint(i))
				})
				at := time.Now()
				_, err := s.Refresh(context.Background())
				m.ok(err)
				d = append(d, time.Since(at))
			}
			m.b.Logf("| see a layer that another process changed | %.3g ms | – | – |", ms(median(d)))
			m.b.ReportMetric(ms(median(d)), "foreign-change-ms")
		})
	})
}
