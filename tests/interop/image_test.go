package interop

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestImageThroughMount reads an image that buildah and skopeo made, whole,
// through the mount, and compares with what the peers say of it.
func TestImageThroughMount(t *testing.T) {
	for _, driver := range []string{"overlay", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, driver, "buildah", "skopeo", "podman", "setfattr", "setfacl")
			e.makeApp()
			mnt := e.mount()
			img := filepath.Join(mnt, "images", appDir)
			var rec []struct {
				ID           string
				Digest       string
				Names        []string
				Layer        string
				Metadata     string
				BigDataNames []string          `json:"big-data-names"`
				Sizes        map[string]int64  `json:"big-data-sizes"`
				Digests      map[string]string `json:"big-data-digests"`
			}
			if err := json.Unmarshal([]byte(e.cs("image", "--json", app)), &rec); err != nil || len(rec) != 1 {
				t.Fatalf("containers-storage image: %v", err)
			}
			want := rec[0]
			if got := e.ls(mnt, "images"); !slices.Contains(got, appDir) || slices.Contains(got, want.ID) {
				t.Errorf("images/ lists %q", got)
			}
			for file, value := range map[string]string{"id": want.ID, "digest": want.Digest, "names": strings.Join(want.Names, "\n")} {
				if got := e.line(img, file); got != value {
					t.Errorf("%s = %q, want %q", file, got, value)
				}
			}
			if got := e.read(img, "metadata"); got != want.Metadata {
				t.Errorf("metadata = %q, want %q", got, want.Metadata)
			}
			if got := e.line(mnt, "images/by-id", want.ID, "id"); got != want.ID {
				t.Errorf("by-id: %q", got)
			}
			if got := e.line(mnt, "images/by-name", app, "id"); got != want.ID {
				t.Errorf("by-name: %q", got)
			}
			e.sameBigData(img, want.ID)
			e.sameLayers(mnt, img, want.Layer)
			image := trim(e.podman("image", "mount", app))
			sameTree(t, "images/*/tree", filepath.Join(img, "tree"), image)
			e.podman("image", "umount", app)
			e.podman("images")
		})
	}
}

// sameBigData compares every item of an image byte for byte.
func (e *env) sameBigData(img, id string) {
	e.Helper()
	keys := strings.Fields(e.cs("list-image-data", id))
	var names []string
	for _, n := range e.ls(img, "bigdata") {
		key, err := url.PathUnescape(n)
		if err != nil {
			e.Fatal(err)
		}
		names = append(names, key)
		got := e.read(img, "bigdata", n)
		if want := e.cs("get-image-data", id, key); got != want {
			e.Errorf("bigdata/%s: %d bytes, want %d", n, len(got), len(want))
		}
		if st, err := os.Stat(filepath.Join(img, "bigdata", n)); err != nil || st.Size() != int64(len(got)) {
			e.Errorf("bigdata/%s: size %v, read %d (%v)", n, st.Size(), len(got), err)
		}
	}
	slices.Sort(names)
	slices.Sort(keys)
	if !slices.Equal(names, keys) {
		e.Errorf("bigdata/ lists %q, containers-storage %q", names, keys)
	}
	if e.read(img, "manifest") != e.cs("get-image-data", id, "manifest") {
		e.Errorf("manifest differs")
	}
	if e.read(img, "config") != e.cs("get-image-data", id, "sha256:"+id) {
		e.Errorf("config differs")
	}
}

// sameLayers walks layers/NN from the base up and compares each layer's
// parent, digests and diff with the peer's.
func (e *env) sameLayers(mnt, img, top string) {
	e.Helper()
	parent := ""
	nns := e.ls(img, "layers")
	if len(nns) != 3 {
		e.Errorf("layers/ lists %q, want 3", nns)
	}
	for _, nn := range nns {
		l := filepath.Join(img, "layers", nn)
		id := e.line(l, "id")
		if parent != "" && e.line(l, "parent", "id") != parent {
			e.Errorf("layers/%s: parent is not %s", nn, parent)
		}
		var rec []map[string]any
		if err := json.Unmarshal([]byte(e.cs("layer", "--json", id)), &rec); err != nil || len(rec) != 1 {
			e.Fatalf("layer --json: %v", err)
		}
		if got := e.line(l, "digest/uncompressed"); got != rec[0]["diff-digest"] {
			e.Errorf("layer %s: digest/uncompressed %q, want %v", id, got, rec[0]["diff-digest"])
		}
		tar := e.read(l, "diff.tar")
		if want := e.cs("diff", "-u", id); tar != want {
			e.Errorf("layer %s: diff.tar has %d bytes, the peer's %d", id, len(tar), len(want))
		}
		if st, err := os.Stat(filepath.Join(l, "diff.tar")); err != nil || st.Size() != int64(len(tar)) {
			e.Errorf("layer %s: diff.tar's size is not true: %v", id, err)
		}
		if got := e.line(mnt, "layers/by-digest", rec[0]["diff-digest"].(string), "id"); got != id && parent != "" {
			e.Logf("by-digest of %s leads to %s (another layer with the same digest)", id, got)
		}
		parent = id
	}
	if parent != top || e.line(img, "layer", "id") != top {
		e.Errorf("top layer is %s, want %s", parent, top)
	}
}
