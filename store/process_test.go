package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// recordChildEnv holds the orders of a process that the tests below start
// from their own binary.
const recordChildEnv = "PLYFS_TEST_RECORD_CHILD"

// order is what such a process does: add names prefix-0 … to a layer; die at
// a step of a save; or hold the locks until it is killed.
type order struct {
	Root, Run, Prefix, DieAt string
	Names                    int
	Hold                     bool
}

// TestRecordChild is the body of such a process.
func TestRecordChild(t *testing.T) {
	text, ok := os.LookupEnv(recordChildEnv)
	if !ok {
		t.Skip("this is the body of processes that other tests start")
	}
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	opts := store.Options{GraphRoot: o.Root, RunRoot: o.Run, DriverName: "vfs"}
	opts = store.WithFailpoint(opts, func(step string) {
		if step == o.DieAt {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	s, err := store.Open(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	for i := range o.Names {
		update(t, s, func(w *store.WriteTx) error {
			if o.Hold {
				fmt.Println("HOLDING")
				select {}
			}
			return firstError(w.AddNames(store.KindLayer, "aa1", fmt.Sprintf("%s-%d", o.Prefix, i)),
				w.AddNames(store.KindImage, "img", fmt.Sprintf("%s-%d", o.Prefix, i)))
		})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func child(t testing.TB, o order) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0], "-test.run=^TestRecordChild$", "-test.count=1")
	c.Env = append(os.Environ(), recordChildEnv+"="+string(text))
	return c
}

// Processes that add names at once, and a peer among them, lose nothing.
func TestProcessesLoseNothing(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	const processes, names = 4, 25
	var wg sync.WaitGroup
	for n := range processes {
		wg.Go(func() {
			if out, err := child(t, order{Root: p.root, Run: p.run, Prefix: fmt.Sprint("p", n), Names: names}).CombinedOutput(); err != nil {
				t.Errorf("process %d: %v\n%s", n, err, out)
			}
		})
	}
	peers := 0
	if _, err := exec.LookPath("containers-storage"); err == nil {
		for ; peers < 10; peers++ {
			p.do(t, "add-names", "-n", fmt.Sprint("peer-", peers), "aa2")
		}
	}
	wg.Wait()
	for _, other := range []*store.Store{s, p.open(t)} {
		view(t, other, func(tx *store.Tx) error {
			for n := range processes {
				for i := range names {
					name := fmt.Sprintf("p%d-%d", n, i)
					for k, id := range map[store.Kind]string{store.KindLayer: "aa1", store.KindImage: "img"} {
						if got, ok := tx.ByName(k, name); !ok || got != id {
							t.Errorf("%s %s: %q", k, name, got)
						}
					}
				}
			}
			for i := range peers {
				if got, ok := tx.ByName(store.KindLayer, fmt.Sprint("peer-", i)); !ok || got != "aa2" {
					t.Errorf("the peer's name %d: %q", i, got)
				}
			}
			return nil
		})
	}
}

// A kill at any step of a save leaves the old file or the new one, whole, a
// store that others can write at once, and no temporary file after an open.
func TestKillInSave(t *testing.T) {
	t.Parallel()
	for step, want := range map[string][2]string{ // names of the layer and of the image
		"save:1 layer": {"x y", "i"},
		"save:2 layer": {"k-0 x y", "i"},
		"save:1 image": {"k-0 x y", "i"},
		"save:2 image": {"k-0 x y", "k-0 i"},
	} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			s, p := plain(t)
			out, err := child(t, order{Root: p.root, Run: p.run, Prefix: "k", Names: 1, DieAt: step}).CombinedOutput()
			if err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("the process was not killed: %v\n%s", err, out)
			}
			temp := p.file(store.KindLayer, ".tmp-layers.json123")
			if err := os.WriteFile(temp, []byte("[{"), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, other := range []*store.Store{s, p.open(t)} {
				if got := [2]string{namesOf(t, other, store.KindLayer, "aa1"), namesOf(t, other, store.KindImage, "img")}; got != want {
					t.Errorf("names %q, want %q", got, want)
				}
			}
			if _, err := os.Stat(temp); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a dead writer's temporary file is left: %v", err)
			}
			update(t, s, func(w *store.WriteTx) error { return w.AddNames(store.KindLayer, "aa2", "after") })
		})
	}
}

// A wait for a lock ends in a sentence that names the lock and its holder.
func TestLockTimeout(t *testing.T) {
	t.Parallel()
	_, p := plain(t)
	s := p.open(t, func(o *store.Options) { o.LockTimeout = 100 * time.Millisecond })
	c := child(t, order{Root: p.root, Run: p.run, Names: 1, Hold: true})
	pipe, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait() // killed
	})
	buf := make([]byte, 7)
	if _, err := pipe.Read(buf); err != nil || string(buf) != "HOLDING" {
		t.Fatalf("%q, %v", buf, err)
	}
	err = s.Update(context.Background(), func(*store.WriteTx) error { return nil })
	if !errors.Is(err, errno.ErrTimeout) || !strings.Contains(err.Error(), filepath.Join("vfs-layers", "layers.lock")) || !strings.Contains(err.Error(), fmt.Sprint(c.Process.Pid)) {
		t.Errorf("update: %v", err)
	}
	view(t, s, func(tx *store.Tx) error { return nil }) // nothing changed: needs no lock
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Update(ctx, func(*store.WriteTx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("update that was given up: %v", err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // killed
	update(t, s, func(w *store.WriteTx) error { return w.AddNames(store.KindLayer, "aa1", "free") })
}
