package store_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/store"
)

// peer runs Debian's containers-storage on a store.
type peer struct{ root, run, driver string }

// newPeer gives a fresh store's place; the test is skipped where the tool is
// missing.
func newPeer(t testing.TB, driver string) peer {
	t.Helper()
	if _, err := exec.LookPath("containers-storage"); err != nil {
		t.Skip("containers-storage is not installed (apt-get install containers-storage): there is no peer to compare with")
	}
	dir := t.TempDir()
	p := peer{filepath.Join(dir, "root"), filepath.Join(dir, "run"), driver}
	t.Cleanup(func() { // the tool bind-mounts its overlay folder on itself
		if driver == "overlay" {
			if out, err := exec.Command("umount", filepath.Join(p.root, "overlay")).CombinedOutput(); err != nil && !strings.Contains(string(out), "not mounted") && !strings.Contains(string(out), "no mount point") {
				t.Errorf("umount: %v %s", err, out)
			}
		}
	})
	return p
}

func (p peer) try(stdin string, args ...string) (string, error) {
	cmd := exec.Command("containers-storage", append([]string{"--graph", p.root, "--run", p.run, "--storage-driver", p.driver}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("containers-storage %q: %w: %s", args, err, errs.String())
	}
	return out.String(), nil
}

func (p peer) do(t testing.TB, args ...string) string {
	t.Helper()
	out, err := p.try("", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (p peer) file(k store.Kind, name string) string {
	return filepath.Join(p.root, p.driver+"-"+k.Plural(), name)
}

// open opens the peer's store with ours, records only.
func (p peer) open(t testing.TB, change ...func(*store.Options)) *store.Store {
	t.Helper()
	o := store.Options{GraphRoot: p.root, RunRoot: p.run, DriverName: p.driver, LockTimeout: 20 * time.Second}
	for _, c := range change {
		c(&o)
	}
	s, err := store.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// populate makes a little of everything with the peer.
func (p peer) populate(t testing.TB) {
	t.Helper()
	p.do(t, "create-layer", "--id", "base", "-n", "b<&>é", "-n", "base two")
	p.do(t, "create-layer", "--id", "top", "base")
	tarball, err := exec.Command("tar", "c", "-C", "/etc", "hostname").Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.try(string(tarball), "applydiff", "base"); err != nil {
		t.Fatal(err)
	}
	p.do(t, "create-image", "-n", "app", "-m", `{"a":"<x>"}`, "top")
	p.do(t, "add-names", "-n", "docker.io/library/app:latest", "app")
	p.do(t, "create-container", "-n", "web", "-m", "m", "app")
	p.do(t, "set-image-data", "-f", "/etc/passwd", "app", "sha256:zz")
	p.do(t, "set-container-data", "-f", "/etc/passwd", "web", "k")
}

// view runs fn in View and fails the test on its error.
func view(t testing.TB, s *store.Store, fn func(*store.Tx) error) {
	t.Helper()
	if err := s.View(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func update(t testing.TB, s *store.Store, fn func(*store.WriteTx) error) {
	t.Helper()
	if err := s.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

// asJSON shows our records as the peers' `-j` shows theirs.
func asJSON(t testing.TB, s *store.Store, k store.Kind) []map[string]any {
	t.Helper()
	out := []map[string]any{}
	view(t, s, func(tx *store.Tx) error {
		for _, id := range tx.IDs(k) {
			m := make(map[string]any)
			for key, v := range fieldsOf(tx, k, id) {
				b, err := json.Marshal(v)
				if err != nil {
					return err
				}
				var x any
				if err := json.Unmarshal(b, &x); err != nil {
					return err
				}
				if !empty(x) {
					m[key] = x
				}
			}
			out = append(out, m)
		}
		return nil
	})
	return out
}

func empty(x any) bool {
	switch v := x.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case float64:
		return v == 0
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// fieldsOf is written against the exported fields only, by hand, so that it
// does not share code with what is tested.
func fieldsOf(tx *store.Tx, k store.Kind, id string) map[string]any {
	switch k {
	case store.KindLayer:
		l := tx.LayerByID(id)
		return map[string]any{
			"id": l.ID, "names": l.Names, "parent": l.Parent, "metadata": l.Metadata, "mountlabel": l.MountLabel, "created": l.Created,
			"compressed-diff-digest": l.CompressedDigest, "compressed-size": l.CompressedSize, "diff-digest": l.DiffDigest, "diff-size": l.DiffSize,
			"compression": l.Compression, "uidset": l.UIDs, "gidset": l.GIDs, "uidmap": l.Maps.UIDs, "gidmap": l.Maps.GIDs,
			"big-data-names": l.BigDataNames, "flags": l.Flags,
		}
	case store.KindImage:
		i := tx.ImageByID(id)
		return map[string]any{
			"id": i.ID, "digest": i.Digest, "names": i.Names, "names-history": i.NamesHistory, "layer": i.TopLayer, "mapped-layers": i.MappedLayers,
			"metadata": i.Metadata, "big-data-names": i.BigDataNames, "big-data-sizes": i.BigDataSizes, "big-data-digests": i.BigDataDigests,
			"created": i.Created, "flags": i.Flags,
		}
	}
	c := tx.ContainerByID(id)
	return map[string]any{
		"id": c.ID, "names": c.Names, "image": c.Image, "layer": c.Layer, "metadata": c.Metadata, "big-data-names": c.BigDataNames,
		"big-data-sizes": c.BigDataSizes, "big-data-digests": c.BigDataDigests, "created": c.Created, "uidmap": c.Maps.UIDs, "gidmap": c.Maps.GIDs,
		"flags": c.Flags,
	}
}

// theirs is what the peer's command says.
func (p peer) theirs(t testing.TB, k store.Kind) []map[string]any {
	t.Helper()
	var out []map[string]any
	text := p.do(t, k.Plural(), "-j")
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	sort.Slice(out, func(i, j int) bool { return out[i]["id"].(string) < out[j]["id"].(string) })
	return out
}

func (p peer) agree(t testing.TB, s *store.Store) {
	t.Helper()
	for _, k := range []store.Kind{store.KindLayer, store.KindImage, store.KindContainer} {
		if d := cmp.Diff(p.theirs(t, k), asJSON(t, s, k)); d != "" {
			t.Errorf("%s: the peer (-) and we (+) differ:\n%s", k.Plural(), d)
		}
	}
}

// Both of us read the same from what either wrote, taking turns.
func TestPeersAgree(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"vfs", "overlay"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t, driver)
			p.populate(t)
			s := p.open(t)
			p.agree(t, s)
			view(t, s, func(tx *store.Tx) error {
				if l, err := tx.Layer("base two"); err != nil || l.DiffSize == 0 || l.DiffDigest == "" {
					t.Errorf("layer: %+v, %v", l, err)
				}
				return nil
			})
			update(t, s, func(w *store.WriteTx) error {
				img, _ := w.ByName(store.KindImage, "app")
				web, _ := w.ByName(store.KindContainer, "web")
				return firstError(
					w.AddNames(store.KindLayer, "top", "b<&>é", "x\ty"),
					w.SetNames(store.KindImage, img, "localhost/new:1", "app"),
					w.SetMetadata(store.KindContainer, web, "{\"é\": \"\\\u2028\"}"),
				)
			})
			p.agree(t, s)
			p.do(t, "add-names", "-n", "theirs", "top")
			p.do(t, "delete-container", "web")
			p.agree(t, s)
			update(t, s, func(w *store.WriteTx) error { return w.RemoveNames(store.KindLayer, "top", "theirs") })
			p.agree(t, s)
			if got := p.do(t, "get-names", "top"); !strings.Contains(got, "b<&>é") || strings.Contains(got, "theirs") {
				t.Errorf("names of top: %q", got)
			}
		})
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// A save of ours leaves the peer's records as they are, byte for byte, and
// the files as format.md says: one line, 0600, a new token of 64 bytes.
func TestSavedFormat(t *testing.T) {
	t.Parallel()
	p := newPeer(t, "vfs")
	p.populate(t)
	path, lock := p.file(store.KindLayer, "layers.json"), p.file(store.KindLayer, "layers.lock")
	before, token := read(t, path), read(t, lock)
	s := p.open(t)
	update(t, s, func(w *store.WriteTx) error { return w.AddNames(store.KindLayer, "top", "new") })
	after := read(t, path)
	want := strings.Replace(before, `{"id":"top",`, `{"id":"top","names":["new"],`, 1)
	if after != want {
		t.Errorf("layers.json\n got %s\nwant %s", after, want)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode() != 0o600 {
		t.Errorf("%v %v", fi.Mode(), err)
	}
	if got := read(t, lock); len(got) != 64 || got == token {
		t.Errorf("token %q was %q", got, token)
	}
	imageToken := read(t, p.file(store.KindImage, "images.lock"))
	update(t, s, func(w *store.WriteTx) error { return w.AddNames(store.KindLayer, "top", "new") })
	if read(t, path) != after || read(t, p.file(store.KindImage, "images.lock")) != imageToken {
		t.Error("an update that changes nothing wrote a file")
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// An update whose function fails leaves no trace, on disk or in memory.
func TestRollback(t *testing.T) {
	t.Parallel()
	p := newPeer(t, "vfs")
	p.populate(t)
	s := p.open(t)
	before := read(t, p.file(store.KindLayer, "layers.json")) + read(t, p.file(store.KindLayer, "layers.lock"))
	gen, err := s.Refresh(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	fail := fmt.Errorf("no")
	err = s.Update(context.Background(), func(w *store.WriteTx) error {
		if err := w.AddNames(store.KindLayer, "top", "gone"); err != nil {
			return err
		}
		if id, ok := w.ByName(store.KindLayer, "gone"); !ok || id != "top" {
			t.Error("the transaction does not see its own change")
		}
		return fail
	})
	if !errors.Is(err, fail) {
		t.Errorf("error %v", err)
	}
	if after := read(t, p.file(store.KindLayer, "layers.json")) + read(t, p.file(store.KindLayer, "layers.lock")); after != before {
		t.Error("a failed update wrote")
	}
	view(t, s, func(tx *store.Tx) error {
		if _, ok := tx.ByName(store.KindLayer, "gone"); ok || tx.Generation() != gen {
			t.Errorf("name there: %v, generation %d, was %d", ok, tx.Generation(), gen)
		}
		return nil
	})
	p.agree(t, s)
}

// Records keep members that nobody here knows, through our rewrites.
func TestUnknownFieldsSurvive(t *testing.T) {
	t.Parallel()
	p := newPeer(t, "vfs")
	p.populate(t)
	path := p.file(store.KindLayer, "layers.json")
	text := strings.Replace(read(t, path), `{"id":"top",`, `{"future":{"a":[1.0,"x"]},"id":"top","flags":{"later":{"n":1e3}},`, 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := p.open(t)
	update(t, s, func(w *store.WriteTx) error { return w.SetMetadata(store.KindLayer, "top", "md") })
	after := read(t, path)
	for _, want := range []string{`"future":{"a":[1.0,"x"]}`, `"flags":{"later":{"n":1e3}}`, `"metadata":"md"`} {
		if !strings.Contains(after, want) {
			t.Errorf("%s is missing from %s", want, after)
		}
	}
	p.agree(t, s)
}
