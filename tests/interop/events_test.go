package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/vfs"
	"github.com/plyfs/plyfs/store"
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

// TestFlips flips a value 10,000 times from another process than the server's,
// without a pause, while readers follow the events: whoever has read of a
// change opens no file that shows what was before it.
func TestFlips(t *testing.T) {
	t.Parallel()
	const flips = 10000
	e := newEnv(t, "vfs")
	shm, err := os.MkdirTemp("/dev/shm", "plyfs-flips-")
	if err != nil {
		t.Skipf("no directory in memory, without which this takes minutes: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(shm); err != nil {
			t.Error(err)
		}
	})
	e.root, e.runroot = filepath.Join(shm, "root"), filepath.Join(shm, "run")
	id := trim(strings.SplitN(e.cs("create-container", "-n", "con", ""), "\n", 2)[0])
	e.cs("set-metadata", "-m", "0", "con")
	s, err := store.Open(context.Background(), store.Options{GraphRoot: e.root, RunRoot: e.runroot, DriverName: "vfs",
		NewDriver: func(c drivers.Config) (drivers.Driver, error) { return vfs.New(c) }})
	e.must(err)
	defer func() { e.must(s.Close()) }()
	mnt := e.mount()
	var wg sync.WaitGroup
	for _, name := range []string{"events.follow", "events.since/0.follow"} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := followFlips(mnt, name, id, flips); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}()
	}
	for i := 1; i <= flips; i++ {
		err := s.Update(context.Background(), func(w *store.WriteTx) error {
			return w.SetMetadata(store.KindContainer, id, strconv.Itoa(i))
		})
		e.must(err)
	}
	wg.Wait()
}

// followFlips reads events until the value is last, and after each line that
// tells of a change the value, which counts at least that many.
func followFlips(mnt, name, id string, last int) (err error) {
	f, err := os.Open(filepath.Join(mnt, name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	lines := bufio.NewScanner(f)
	seen, looks := 0, 0
	for lines.Scan() {
		l := lines.Text()
		if !strings.Contains(l, id) || !strings.Contains(l, `"metadata"`) {
			continue
		}
		seen++
		data, err := os.ReadFile(filepath.Join(mnt, "containers/con/metadata"))
		if err != nil {
			return err
		}
		looks++
		v, err := strconv.Atoi(string(data))
		if err != nil || v < seen {
			return fmt.Errorf("after %d changes were told the value is %q (%w)", seen, data, err)
		}
		if v == last {
			return nil
		}
	}
	return errors.Join(fmt.Errorf("the events ended after %d looks", looks), lines.Err())
}
