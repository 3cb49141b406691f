package interop

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// concurrentFor is how long TestConcurrent works: 20 s, or with PLYFS_LONG=1
// (make test-long) a minute.
func concurrentFor() time.Duration {
	if os.Getenv("PLYFS_LONG") == "1" {
		return time.Minute
	}
	return 20 * time.Second
}

// book is what one worker made and did not delete.
type book struct {
	mu   sync.Mutex
	live map[string]bool
	ops  map[string]int
}

func (b *book) note(op, name string, live bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ops[op]++
	if live {
		b.live[name] = true
	} else {
		delete(b.live, name)
	}
}

// TestConcurrent has two mounts, podman and containers-storage create, rename
// and delete on one store at once. Each counts its own objects; none is lost,
// none comes back, and the JSON on disk is valid at every look.
func TestConcurrent(t *testing.T) {
	e := newEnv(t, "overlay", "podman", "buildah", "skopeo", "setfattr", "setfacl")
	e.makeApp()
	m1, m2 := e.mount(), e.mount()
	layers := &book{live: map[string]bool{}, ops: map[string]int{}}
	containers := &book{live: map[string]bool{}, ops: map[string]int{}}
	end := time.Now().Add(concurrentFor())
	var wg sync.WaitGroup
	work := func(f func(i int) error) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; time.Now().Before(end); i++ {
				if err := f(i); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	work(mountLayers(m1, "m1", layers))
	work(mountContainers(m1, "m1", containers))
	work(mountLayers(m2, "m2", layers))
	work(mountContainers(m2, "m2", containers))
	work(e.peerLayers(layers))
	work(e.podmanContainers(containers))
	work(e.readJSON)
	wg.Wait()
	t.Logf("layers: %v, %d live; containers: %v, %d live", layers.ops, len(layers.live), containers.ops, len(containers.live))
	for name := range containers.live {
		if strings.HasPrefix(name, "w-podman-") {
			layers.live[name+"-layer"] = true // podman names the layers of its containers so
		}
	}
	for kind, b := range map[string]*book{"layers": layers, "containers": containers} {
		for _, m := range []string{m1, m2} {
			e.sameNames(filepath.Join(m, kind), b.live)
		}
		for name := range b.live {
			if r := e.tryCS("exists", "--"+strings.TrimSuffix(kind, "s"), name); r.code != 0 {
				t.Errorf("containers-storage lost %s %s", kind, name)
			}
		}
	}
	e.podman("ps", "-a", "--external")
	e.nothingLeft()
}

// sameNames compares the workers' names (they begin with w-) with a listing.
func (e *env) sameNames(dir string, want map[string]bool) {
	e.Helper()
	got := map[string]bool{}
	for _, n := range e.ls(dir) {
		if strings.HasPrefix(n, "w-") {
			got[n] = true
		}
	}
	for n := range want {
		if !got[n] {
			e.Errorf("%s: lost %s", dir, n)
		}
	}
	for n := range got {
		if !want[n] {
			e.Errorf("%s: %s came back", dir, n)
		}
	}
}

func mountLayers(mnt, who string, b *book) func(int) error {
	return func(i int) error {
		name, next := fmt.Sprintf("w-%s-l%d", who, i), fmt.Sprintf("w-%s-r%d", who, i)
		dir := filepath.Join(mnt, "layers")
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
		b.note("mkdir", name, true)
		if i%2 == 0 {
			if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, next)); err != nil {
				return err
			}
			b.note("mv", name, false)
			b.note("mv", next, true)
			name = next
		}
		if i%3 == 0 {
			return nil
		}
		if err := rmdir(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("rmdir %s: %w", name, err)
		}
		b.note("rmdir", name, false)
		return nil
	}
}

// rmdir is rmdir(2), called again when a signal of Go's scheduler interrupted
// the wait for a lock, as package os does. An interrupted one must have done
// nothing: one that had would be ENOENT the next time.
func rmdir(path string) error {
	for {
		if err := syscall.Rmdir(path); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func mountContainers(mnt, who string, b *book) func(int) error {
	return func(i int) error {
		name := fmt.Sprintf("w-%s-c%d", who, i)
		if err := os.Mkdir(filepath.Join(mnt, "images", appDir, "containers", name), 0o755); err != nil {
			return err
		}
		b.note("mkdir", name, true)
		dir := filepath.Join(mnt, "containers", name)
		if err := os.WriteFile(filepath.Join(dir, "metadata"), []byte(`{"n":"`+name+`"}`), 0o644); err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join(dir, "metadata"))
		if err != nil || string(got) != `{"n":"`+name+`"}` {
			return fmt.Errorf("metadata of %s reads %q: %w", name, got, errors.Join(err, errors.New("lost update")))
		}
		b.note("write", name, true)
		if i%4 == 0 {
			return nil
		}
		if err := rmdir(dir); err != nil {
			return fmt.Errorf("rmdir %s: %w", name, err)
		}
		b.note("rmdir", name, false)
		return nil
	}
}

func (e *env) peerLayers(b *book) func(int) error {
	return func(i int) error {
		name := fmt.Sprintf("w-peer-l%d", i)
		if r := e.tryCS("create-layer", "-n", name); r.code != 0 {
			return fmt.Errorf("containers-storage create-layer: %s%s", r.out, r.err)
		}
		b.note("peer-create", name, true)
		if i%2 == 0 {
			return nil
		}
		if r := e.tryCS("delete-layer", name); r.code != 0 {
			return fmt.Errorf("containers-storage delete-layer: %s%s", r.out, r.err)
		}
		b.note("peer-delete", name, false)
		return nil
	}
}

func (e *env) podmanContainers(b *book) func(int) error {
	return func(i int) error {
		name := fmt.Sprintf("w-podman-c%d", i)
		r := e.try(nil, "podman", append(e.podmanArgs(), "create", "--name", name, "--network=none", app, "/bin/sh")...)
		if r.code != 0 {
			return fmt.Errorf("podman create: %s%s", r.out, r.err)
		}
		b.note("podman-create", name, true)
		if i%2 == 0 {
			return nil
		}
		if r := e.try(nil, "podman", append(e.podmanArgs(), "rm", name)...); r.code != 0 {
			return fmt.Errorf("podman rm: %s%s", r.out, r.err)
		}
		b.note("podman-rm", name, false)
		return nil
	}
}

// readJSON checks that every JSON file of the store parses whenever looked at.
func (e *env) readJSON(int) error {
	for _, f := range []string{"layers/layers", "images/images", "containers/containers"} {
		dir, base, _ := strings.Cut(f, "/")
		path := filepath.Join(e.root, e.driver+"-"+dir, base+".json")
		data, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if len(data) == 0 {
			continue
		}
		var v []any
		if err := json.NewDecoder(bytes.NewReader(data)).Decode(&v); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	time.Sleep(5 * time.Millisecond)
	return nil
}
