package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// journalled are the operations that a later opening of the store completes or
// takes back by their journal.
func journalled() []string {
	return []string{"create-container", "delete-image", "delete-container", "diff-full", "seal", "data-replace", "data-remove"}
}

// TestKillRecovery kills a process, and then the one that opens the store to
// complete or take back what the first had begun, at each of its steps. The
// third finds the store as before the operation, or as after it.
func TestKillRecovery(t *testing.T) {
	t.Parallel()
	for i, op := range journalled() {
		driver := []string{"overlay", "vfs"}[i%2]
		t.Run(driver+"/"+op, func(t *testing.T) {
			t.Parallel()
			killTwice(t, newLifeEnv(t, driver), op)
		})
	}
}

func killTwice(t *testing.T, e *lifeEnv, op string) {
	prepare(t, e)
	before := e.snapshot(t)
	dir := filepath.Dir(e.root)
	template := filepath.Join(dir, "template")
	copyStore(t, dir, template)
	job := killJob{Driver: e.driver, Root: e.root, Run: e.run, Op: op}
	steps, _ := runChild(t, job)
	after := e.snapshot(t)
	nothing := killJob{Driver: e.driver, Root: e.root, Run: e.run, Op: "nothing"}
	tried := 0
	// Journals name inode numbers, so what the first kill leaves is not copied,
	// but made again for each second one.
	first := func(n int) {
		restoreStore(t, template, dir)
		job.At = n + 1
		if _, killed := runChild(t, job); !killed {
			t.Fatalf("not killed at step %d of %v", n+1, steps)
		}
	}
	for n := range steps {
		if !long() && n%3 != 1 {
			continue
		}
		first(n)
		recovery, _ := runChild(t, nothing)
		for m := range recovery {
			if !long() && (m+n)%4 != 0 {
				continue
			}
			first(n)
			again := nothing
			again.At = m + 1
			if _, killed := runChild(t, again); !killed {
				continue // it removes in the background what was left, in any order
			}
			tried++
			got := e.snapshot(t)
			if d1, d2 := cmp.Diff(before, got), cmp.Diff(after, got); d1 != "" && d2 != "" {
				t.Errorf("killed at %s, then at %s: neither undone (%s) nor done (%s)", steps[n], recovery[m], d1, d2)
			}
		}
	}
	if tried == 0 {
		t.Error("no recovery was killed")
	}
}

// TestKillAnywhere kills processes at any moment, between two steps as well.
func TestKillAnywhere(t *testing.T) {
	t.Parallel()
	for driver := range constructors() {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			e := newLifeEnv(t, driver)
			prepare(t, e)
			before := e.snapshot(t)
			dir := filepath.Dir(e.root)
			template := filepath.Join(dir, "template")
			copyStore(t, dir, template)
			rounds := 2
			if long() {
				rounds = 40
			}
			for _, op := range []string{"import-layer", "delete-layer", "create-image", "delete-image", "create-container", "delete-container", "diff-full", "data-replace"} {
				restoreStore(t, template, dir)
				at := time.Now()
				runChild(t, killJob{Driver: e.driver, Root: e.root, Run: e.run, Op: op})
				took := time.Since(at)
				after := e.snapshot(t)
				for range rounds {
					restoreStore(t, template, dir)
					killLater(t, killJob{Driver: e.driver, Root: e.root, Run: e.run, Op: op}, took)
					got := e.snapshot(t)
					if d1, d2 := cmp.Diff(before, got), cmp.Diff(after, got); d1 != "" && d2 != "" {
						t.Errorf("%s: neither undone (%s) nor done (%s)", op, d1, d2)
					}
				}
			}
		})
	}
}

// killLater starts a job and kills it at a moment of the time that it takes.
func killLater(t *testing.T, job killJob, took time.Duration) {
	t.Helper()
	b, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), rand.N(took)+time.Millisecond)
	defer cancel()
	c := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKillChild$", "-test.count=1")
	c.Env = append(slices.Clone(os.Environ()), killEnv+"="+string(b))
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if errors.Is(err, context.DeadlineExceeded) {
		return // it ended by itself in the moment when it was to be killed
	}
	if err != nil && ctx.Err() == nil || err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v\n%s", err, out)
	}
}
