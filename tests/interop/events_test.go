package interop

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// TestNoReadOlderThanEvents counts up a container's metadata with the peer
// while readers look at events and then at the value: an event that was seen
// is at least one write, so the value is never behind their number.
func TestNoReadOlderThanEvents(t *testing.T) {
	t.Parallel()
	const writes = 150
	e := newEnv(t, "vfs")
	id := trim(strings.SplitN(e.cs("create-container", "-n", "con", ""), "\n", 2)[0])
	e.cs("set-metadata", "-m", "0", "con")
	mnt := e.mount()
	if got := e.read(mnt, "containers/con/metadata"); got != "0" {
		t.Fatalf("metadata = %q", got)
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-done:
					return
				default:
				}
				n := countChanges(t, mnt, id)
				data, err := os.ReadFile(filepath.Join(mnt, "containers/con/metadata"))
				if err != nil {
					t.Error(err)
					return
				}
				if v, err := strconv.Atoi(string(data)); err != nil || v < n {
					t.Errorf("events show %d changes, metadata reads %q (%v)", n, data, err)
					return
				}
			}
		}()
	}
	for i := 1; i <= writes; i++ {
		e.cs("set-metadata", "-m", strconv.Itoa(i), "con")
	}
	close(done)
	wg.Wait()
	if got := e.read(mnt, "containers/con/metadata"); got != strconv.Itoa(writes) {
		t.Errorf("at the end metadata = %q", got)
	}
	if n := countChanges(t, mnt, id); n == 0 {
		t.Errorf("events show no change:\n%s", e.read(mnt, "events"))
	}
}

// countChanges counts the events that changed id's metadata, and checks that
// generations never fall.
func countChanges(t *testing.T, mnt, id string) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(mnt, "events"))
	if err != nil {
		t.Error(err)
		return 0
	}
	n, last := 0, uint64(0)
	for line := range strings.Lines(string(data)) {
		var ev struct {
			Generation uint64
			Op, ID     string
			Fields     []string
		}
		if err := json.Unmarshal([]byte(line), &ev); err != nil {
			t.Errorf("events: %q: %v", line, err)
			return n
		}
		if ev.Generation < last {
			t.Errorf("events: generation %d after %d", ev.Generation, last)
		}
		last = ev.Generation
		if ev.ID == id && ev.Op == "change" && slices.Contains(ev.Fields, "metadata") {
			n++
		}
	}
	return n
}
