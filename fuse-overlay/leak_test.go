package fuseoverlay

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestForgottenIsGivenBack walks and works in a large tree, lets the kernel
// forget it, and again: nodes, descriptors, goroutines and memory are the same
// afterwards. The server is a child, since other tests would count.
func TestForgottenIsGivenBack(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, mode := range []string{"default", "passthrough"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			if r := fusetest.Child(t, "TestForgottenChild", "FORGET_MODE="+mode); r.Status != 0 {
				t.Errorf("%s\n%s", r.Out, r.Err)
			}
		})
	}
}

// holdings is what a server holds.
type holdings struct {
	nodes, places, files, backings, descriptors, goroutines int
	heap                                                    uint64
}

func (r *rig) holdings() holdings {
	r.t.Helper()
	o := r.server.o
	runtime.GC()
	runtime.GC() // what finalizers let go of in the first
	h := holdings{places: o.tree.cache.Len(), goroutines: runtime.NumGoroutine()}
	o.treeMu.Lock()
	h.nodes = o.table.nodes.n + len(o.table.byKey)
	o.treeMu.Unlock()
	o.fds.mu.Lock()
	h.files = o.fds.lru.Len() + len(o.fds.lost)
	o.fds.mu.Unlock()
	if o.pass != nil {
		h.backings = o.pass.count()
	}
	fds, err := os.ReadDir("/proc/self/fd")
	check(r.t, err)
	h.descriptors = len(fds)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.heap = m.HeapAlloc
	return h
}

// over says what h has more than before. Of the heap it allows the buffers of a
// megabyte that readers get with their first large request and keep: as many
// readers were seen to hold 8.5 MB of heap, and 12.7 MB after more of them had
// been asked. A thousand nodes that stay are found by their count, and those of
// the long run, a megabyte or more a round, by the heap, too.
func (h holdings) over(before holdings) error {
	const slack, readers = 8 << 20, 2 // as many readers come and go
	if h.nodes > before.nodes || h.places > before.places || h.files > before.files || h.backings > before.backings ||
		h.descriptors > before.descriptors || h.goroutines > before.goroutines+readers || h.heap > before.heap+slack {
		return fmt.Errorf("%+v, before %+v", h, before)
	}
	return nil
}

// TestForgottenChild is the child of TestForgottenIsGivenBack.
func TestForgottenChild(t *testing.T) {
	mode := os.Getenv("FORGET_MODE")
	if mode == "" {
		t.Skip("runs as a child of TestForgottenIsGivenBack")
	}
	dirs := 60
	if os.Getenv("PLYFS_LONG") != "" {
		dirs = 600
	}
	fill := fmt.Sprintf(`for d in $(seq %d); do mkdir -p t/$d/sub; (cd t/$d; seq -f file-%%g 100 | xargs touch; echo x >sub/x; ln sub/x sub/y; ln -s x sub/z); done`, dirs)
	r := newRig(t, fill, "mkdir t; cd t; for d in $(seq 10); do mkdir $d; echo low >$d/low; done")
	if mode == "passthrough" {
		r.config.Passthrough = PassthroughOnly
	}
	r.start()
	var before holdings
	for round := range 6 {
		r.do(`find . -ls >/dev/null; cat t/*/sub/x t/*/low >/dev/null
			mkdir new; for i in $(seq 200); do echo $i >new/$i; done; for i in $(seq 50); do mv new/$i t/$i/moved; ln t/$i/moved t/$i/linked; done
			echo y | tee -a t/*/sub/y >/dev/null; chmod 600 t/1/file-*; rm -r t/*/moved t/*/linked new; exec 3<>t/1/file-7; rm t/1/file-7; echo again >&3; echo 7 >t/1/file-7; ls -lR t/1 >/dev/null`)
		if k := r.holdings().nodes; k < 100*dirs {
			t.Fatalf("%d nodes after a walk over more files", k)
		}
		for _, name := range []string{"t", "new"} {
			if s := r.server.fuse.EntryNotify(rootID, name); !s.Ok() && !strings.Contains(s.String(), "no such file") {
				t.Fatalf("forget %s: %v", name, s)
			}
		}
		// Memory grows in the first two rounds: maps, buffers, goroutines that stay.
		if err := eventually(func() error {
			h := r.holdings()
			if h.nodes > 1 || h.files > 0 || h.backings > 0 {
				return fmt.Errorf("%+v", h)
			}
			if round == 1 {
				before = h
			}
			if round > 1 {
				return h.over(before)
			}
			return nil
		}); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	t.Logf("%+v", before)
}

// TestMemoryIsGivenBack: a cached inode takes a few hundred bytes, and when the
// kernel has forgotten many the system has the memory back, without a request
// or a collection in between. The server is a child, since other tests would
// count.
func TestMemoryIsGivenBack(t *testing.T) {
	t.Parallel()
	needRoot(t)
	if r := fusetest.Child(t, "TestMemoryChild", "MEMORY_CHILD=1"); r.Status != 0 {
		t.Errorf("%s\n%s", r.Out, r.Err)
	}
}

// TestMemoryChild is the child of TestMemoryIsGivenBack.
func TestMemoryChild(t *testing.T) {
	if os.Getenv("MEMORY_CHILD") == "" {
		t.Skip("runs as a child of TestMemoryIsGivenBack")
	}
	const files = manyFreed + manyFreed/4
	r := newRig(t, fmt.Sprintf(`mkdir t; cd t; for d in $(seq %d); do mkdir $d; (cd $d; seq -f name-of-a-file-%%g 1024 | xargs touch); done`, files/1024)).start()
	start := r.holdings()
	r.do("find . -size +1")
	walked := r.holdings()
	if k := walked.nodes - start.nodes; k < files || (walked.heap-start.heap)/uint64(k) > 350 {
		t.Errorf("%d bytes for %d nodes of %d files", walked.heap-start.heap, k, files)
	}
	if s := r.server.fuse.EntryNotify(rootID, "t"); !s.Ok() {
		t.Fatalf("forget: %v", s)
	}
	check(t, eventually(func() error {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if held := m.HeapInuse + m.HeapIdle - m.HeapReleased; held > start.heap+(walked.heap-start.heap)/2 {
			return fmt.Errorf("%d bytes are held, of %d after the walk and %d before", held, walked.heap, start.heap)
		}
		return nil
	}))
}
