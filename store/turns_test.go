package store_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/store"
)

// unknown is what a later tool might write into every object of a file.
const unknown = `{"deep":[1.50,{"<x>":null,"id":"not-an-id"}],"n":1e3}`

// sow puts the member "later" into every object of a JSON text but those of
// maps from names to values, which hold no members.
func sow(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			sow(e)
		}
	case map[string]any:
		for k, e := range v {
			if !strings.HasPrefix(k, "big-data-") {
				sow(e)
			}
		}
		v["later"] = json.RawMessage(unknown)
	}
}

// reap counts the members "later" of an object and what is below it, and tells
// whether each is whole.
func reap(t *testing.T, v any) int {
	t.Helper()
	n := 0
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			n += reap(t, e)
		}
	case map[string]any:
		for k, e := range v {
			if k != "later" {
				n += reap(t, e)
				continue
			}
			n++
			var want any
			if err := json.Unmarshal([]byte(unknown), &want); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, e); d != "" {
				t.Errorf("a member that is not known changed: %s", d)
			}
		}
	}
	return n
}

// TestTurns: containers-storage and ours change one store in turn. What ours
// does not know of survives its rewrites, at every depth, and both always see
// the same objects.
func TestTurns(t *testing.T) {
	t.Parallel()
	needs(t, "containers-storage")
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		e.peer("create-layer", "-i", "base", "-n", "b", "--uidmap", "0:1000:65536", "--gidmap", "0:1000:65536")
		e.peer("create-layer", "-i", "top", "base")
		e.peer("create-image", "-i", "img", "-n", "i", "top")
		e.peer("create-container", "-i", "ctr", "-n", "c", "img")
		e.peer("mount", "ctr")
		files := []string{
			filepath.Join(e.kind("layers"), "layers.json"), filepath.Join(e.kind("images"), "images.json"),
			filepath.Join(e.kind("containers"), "containers.json"), filepath.Join(e.run, e.driver+"-layers", "mountpoints.json"),
		}
		sown := map[string]int{}
		for _, f := range files {
			text := edit(t, f, sow)
			sown[f] = reap(t, text)
			if sown[f] == 0 {
				t.Fatalf("%s has no objects", f)
			}
		}
		s := e.open()
		changeAll(t, s)
		for _, f := range files {
			if got := reap(t, parse(t, f)); got != sown[f] {
				t.Errorf("%s: of %d unknown members %d are left in %s", f, sown[f], got, read(t, f))
			}
		}
		e.agree(t, s)
		// Now the other one, and ours again.
		e.peer("add-names", "-n", "another", "img")
		e.peer("set-metadata", "-m", "theirs", "ctr")
		e.peer("create-layer", "-i", "late", "top")
		e.agree(t, s)
		changeAll(t, s)
		e.agree(t, s)
		e.peer("unmount", "ctr")
		e.peer("delete-container", "ctr")
		e.peer("delete-layer", "late")
		e.agree(t, s)
	})
}

// changeAll makes ours write every file.
func changeAll(t *testing.T, s *store.Store) {
	t.Helper()
	ctx := context.Background()
	update(t, s, func(w *store.WriteTx) error {
		for k, id := range map[store.Kind]string{store.KindLayer: "base", store.KindImage: "img", store.KindContainer: "ctr"} {
			r := string(rune('m'+k)) + "d"
			if err := w.SetMetadata(k, id, r); err != nil {
				return err
			}
			// And back: each is a rewrite of what was just written.
			if err := w.SetMetadata(k, id, "ours"); err != nil {
				return err
			}
		}
		return nil
	})
	if _, err := s.Mount(ctx, "ctr", drivers.MountOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Unmount(ctx, "ctr", false); err != nil {
		t.Fatal(err)
	}
}

// agree compares what both see.
func (e *lifeEnv) agree(t *testing.T, s *store.Store) {
	t.Helper()
	type object struct {
		ID       string        `json:"id"`
		Names    []string      `json:"names,omitempty"`
		Parent   string        `json:"parent,omitempty"`
		Layer    string        `json:"layer,omitempty"`
		Metadata string        `json:"metadata,omitempty"`
		UIDs     []idmap.Range `json:"uidmap,omitempty"`
	}
	theirs := map[string]map[string]object{}
	for _, verb := range []string{"layers", "images", "containers"} {
		var list []object
		if err := json.Unmarshal([]byte(e.peer(verb, "--json")), &list); err != nil {
			t.Fatal(err)
		}
		theirs[verb] = map[string]object{}
		for _, o := range list {
			theirs[verb][o.ID] = o
		}
	}
	ours := map[string]map[string]object{"layers": {}, "images": {}, "containers": {}}
	view(t, s, func(tx *store.Tx) error {
		for l := range tx.Layers() {
			ours["layers"][l.ID] = object{ID: l.ID, Names: l.Names, Parent: l.Parent, Metadata: l.Metadata, UIDs: l.Maps.UIDs}
		}
		for i := range tx.Images() {
			ours["images"][i.ID] = object{ID: i.ID, Names: i.Names, Layer: i.TopLayer, Metadata: i.Metadata}
		}
		for c := range tx.Containers() {
			ours["containers"][c.ID] = object{ID: c.ID, Names: c.Names, Layer: c.Layer, Metadata: c.Metadata, UIDs: c.Maps.UIDs}
		}
		return nil
	})
	if d := cmp.Diff(theirs, ours); d != "" {
		t.Errorf("containers-storage (-) and ours (+) do not agree: %s", d)
	}
}

func parse(t *testing.T, path string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, path)), &v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return v
}

// edit rewrites a JSON file and returns what it then holds.
func edit(t *testing.T, path string, fn func(any)) any {
	t.Helper()
	v := parse(t, path)
	fn(v)
	text, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, path)
}
