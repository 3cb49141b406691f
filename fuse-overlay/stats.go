package fuseoverlay

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/plyfs/plyfs/internal/fusewire"
)

// counters are what an Overlay has done.
type counters struct {
	copyUps atomic.Uint64 // files and directories copied up
	asked   atomic.Uint64 // requests for a node that the kernel knows
}

// Stats describes the mount, a key and a value a line:
//
//	nodes N              files that the kernel knows
//	descriptors N        open for directories, and for files
//	passed_through N     files that the kernel reads and writes itself (passthrough)
//	given N              files whose contents it was given at their first opening
//	                     (passthrough)
//	copied_up N          files and directories copied up since the mount
//	copied_early N M     of these, files whose copies were made before they were
//	                     asked for, and copies made so that nobody wanted
//	upper_bytes N M      what the upper holds, and its bound (size=, or 0)
//	upper_files N M      likewise (inodes=); both only with a bound
//	dialogues N M        how often the server joined a program's processor, and in
//	                     how many of those it had to leave since others wanted it
//	read_ahead N M       directories that were read before a walk came to them, and
//	                     how many of them were used
//	crowds N             how often one thread of it answered many programs
//	goroutines N         requests at work, and what waits for some
//	memory N             bytes of the server's heap
//	degraded no|WHY      whether an internal error made the mount read-only
func (s *Server) Stats() string {
	o := s.o
	o.treeMu.Lock()
	nodes := o.table.nodes.n
	o.treeMu.Unlock()
	o.fds.mu.Lock()
	files := o.fds.lru.Len()
	o.fds.mu.Unlock()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	var b strings.Builder
	fmt.Fprintf(&b, "nodes %d\ndescriptors %d\ncopied_up %d\n", nodes, files+o.tree.cache.Len(), o.copyUps.Load())
	o.earlyCopies.mu.Lock()
	fmt.Fprintf(&b, "copied_early %d %d\n", o.earlyCopies.used, o.earlyCopies.lost)
	o.earlyCopies.mu.Unlock()
	if o.pass != nil {
		fmt.Fprintf(&b, "passed_through %d\ngiven %d\n", o.pass.count(), o.pass.giving.files.Load())
	}
	if q := o.quota; q != nil {
		q.mu.Lock()
		fmt.Fprintf(&b, "upper_bytes %d %d\nupper_files %d %d\n", q.bytes, q.mostBytes, len(q.files), q.mostFiles)
		q.mu.Unlock()
	}
	if w, ok := s.fuse.(*fusewire.Server); ok {
		all, starved := w.Dialogues()
		fmt.Fprintf(&b, "dialogues %d %d\ncrowds %d\n", all, starved, w.Crowds())
	}
	o.ahead.mu.Lock()
	fmt.Fprintf(&b, "read_ahead %d %d\n", o.ahead.read, o.ahead.used)
	o.ahead.mu.Unlock()
	why := "no"
	if d := o.degraded.Load(); d != nil {
		why = strings.ReplaceAll(*d, "\n", " ")
	}
	fmt.Fprintf(&b, "goroutines %d\nmemory %d\ndegraded %s\n", runtime.NumGoroutine(), m.HeapAlloc, why)
	return b.String()
}
