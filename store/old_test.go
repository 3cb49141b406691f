package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/whiteout"
	"github.com/plyfs/plyfs/store"
)

// oldStore writes a store by hand in the form of July 2018: base ← top ← image
// ← container. It is told from that of today by its lock files (64 hex digits),
// directories' modes, and records without uidset, gidset and flags.
type oldStore struct {
	t   *testing.T
	e   *lifeEnv
	err error
}

const (
	oldBase, oldTop = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	oldImage, oldCt = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc", "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
	oldCtLayer      = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
	oldCreated      = `"created":"2018-07-05T12:00:00.123456789Z"`
)

func (o *oldStore) mkdir(mode os.FileMode, parts ...string) {
	path := filepath.Join(append([]string{o.e.root}, parts...)...)
	o.err = errors.Join(o.err, os.MkdirAll(path, mode), os.Chmod(path, mode))
}

func (o *oldStore) file(mode os.FileMode, text string, parts ...string) {
	path := filepath.Join(append([]string{o.e.root}, parts...)...)
	o.err = errors.Join(o.err, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode))
}

// layer makes a layer's directories; parents are nearest first.
func (o *oldStore) layer(id, link string, parents ...string) {
	if o.e.driver == "vfs" {
		o.mkdir(0o755, "vfs", "dir", id)
		return
	}
	o.mkdir(0o700, "overlay", id)
	o.mkdir(0o755, "overlay", id, "diff")
	o.mkdir(0o700, "overlay", id, "work")
	o.mkdir(0o700, "overlay", id, "merged")
	o.file(0o644, link, "overlay", id, "link")
	if len(parents) > 0 {
		o.file(0o644, "l/"+strings.Join(parents, ":l/"), "overlay", id, "lower")
	}
	o.err = errors.Join(o.err, os.Symlink("../"+id+"/diff", filepath.Join(o.e.root, "overlay", "l", link)))
}

// fill extracts a tar into a layer and returns the record's members for it.
func (o *oldStore) fill(id string, stream []byte) string {
	style := whiteout.Apply
	if o.e.driver == "overlay" {
		style = whiteout.Trusted
	}
	dir, err := os.Open(o.e.content(id))
	if err != nil {
		o.t.Fatal(err)
	}
	split, err := os.OpenFile(filepath.Join(o.e.kind("layers"), id+".tar-split.gz"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		o.t.Fatal(err)
	}
	r, err := layertar.Import(context.Background(), dir, bytes.NewReader(stream), split, layertar.ApplyOptions{Style: style})
	o.err = errors.Join(o.err, err, dir.Close(), split.Close())
	return fmt.Sprintf(`"compressed-diff-digest":"%s","compressed-size":%d,"diff-digest":"%s","diff-size":%d`, r.CompressedDigest, r.CompressedSize, r.DiffDigest, r.DiffSize)
}

func (o *oldStore) make(base, top []byte) {
	links := [3]string{strings.Repeat("A", 26), strings.Repeat("B", 26), strings.Repeat("C", 26)}
	o.mkdir(0o700)
	o.mkdir(0o700, "tmp")
	o.mkdir(0o700, "mounts")
	o.mkdir(0o700, "overlay", "l")
	o.file(0o600, "", "storage.lock")
	for _, k := range []string{"layers", "images", "containers"} {
		o.file(0o644, strings.Repeat("0123456789abcdef", 4), o.e.driver+"-"+k, k+".lock")
	}
	o.layer(oldBase, links[0])
	o.layer(oldTop, links[1], links[0])
	o.layer(oldCtLayer, links[2], links[1], links[0])
	if o.err != nil {
		o.t.Fatal(o.err)
	}
	b := o.fill(oldBase, base)
	if o.e.driver == "vfs" {
		o.fill(oldTop, base)
	}
	t := o.fill(oldTop, top)
	if o.e.driver == "vfs" {
		for _, part := range [][]byte{base, top} {
			o.fill(oldCtLayer, part)
		}
		o.err = errors.Join(o.err, os.Remove(filepath.Join(o.e.kind("layers"), oldCtLayer+".tar-split.gz")))
	}
	o.file(0o600, `[{"id":"`+oldBase+`",`+oldCreated+`,`+b+`},{"id":"`+oldTop+`","names":["n"],"parent":"`+oldBase+`",`+oldCreated+`,`+t+`,"from-2018":{"kept":1}},{"id":"`+oldCtLayer+`","parent":"`+oldTop+`",`+oldCreated+`}]`, o.e.driver+"-layers", "layers.json")
	o.file(0o600, "{}", o.e.driver+"-images", oldImage, "manifest")
	o.file(0o600, `[{"id":"`+oldImage+`","names":["docker.io/library/old:latest"],"layer":"`+oldTop+`","metadata":"{}","big-data-names":["manifest"],"big-data-sizes":{"manifest":2},"big-data-digests":{"manifest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},`+oldCreated+`}]`, o.e.driver+"-images", "images.json")
	o.file(0o600, `[{"id":"`+oldCt+`","names":["c"],"image":"`+oldImage+`","layer":"`+oldCtLayer+`","metadata":"{}",`+oldCreated+`}]`, o.e.driver+"-containers", "containers.json")
	if o.err != nil {
		o.t.Fatal(o.err)
	}
}

// A store in the form of July 2018 opens, is sound, gives back its tars, and
// is worked on without losing what it says; the peers of today read it then.
func TestStoreOf2018(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		base := makeTar(t, entry{name: "./"}, entry{name: "./etc/"}, entry{name: "./etc/f", text: "f"}, entry{name: "./gone", text: "g"})
		top := makeTar(t, entry{name: "./.wh.gone"}, entry{name: "./etc/g", text: "g"})
		(&oldStore{t: t, e: e}).make(base, top)
		ctx := context.Background()
		s := e.open()
		if got := check(t, s, store.CheckOptions{Level: store.CheckFull}); got != "" {
			t.Errorf("not sound:\n%s", got)
		}
		for id, want := range map[string][]byte{oldBase: base, "n": top} {
			tar := get(t, s.DiffTar, ctx, id)
			var b bytes.Buffer
			_, err := tar.WriteTo(&b)
			if err = errors.Join(err, tar.Close()); err != nil || !bytes.Equal(b.Bytes(), want) {
				t.Errorf("the tar of %s is another, %v", id, err)
			}
		}
		path, err := s.Mount(ctx, "c", drivers.MountOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := listing(t, path); got != "etc etc/f etc/g" {
			t.Errorf("the container holds %s", got)
		}
		if err := os.WriteFile(filepath.Join(path, "new"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Unmount(ctx, "c", false); err != nil {
			t.Fatal(err)
		}
		importLayer(t, s, store.LayerSpec{ID: "over", Parent: oldTop}, makeTar(t, entry{name: "over", text: "o"}))
		get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "second", Image: oldImage})
		update(t, s, func(w *store.WriteTx) error { return w.AddNames(store.KindLayer, oldTop, "m") })
		if text := read(t, filepath.Join(e.kind("layers"), "layers.json")); !strings.Contains(text, `"from-2018":{"kept":1}`) || strings.Contains(text, `"uidset":null`) {
			t.Errorf("the record has changed: %s", text)
		}
		for _, verb := range []string{"layers", "images", "containers"} {
			want := map[string]string{"layers": oldTop, "images": "docker.io/library/old:latest", "containers": oldCt}[verb]
			if out := e.peer(verb); !strings.Contains(out, want) {
				t.Errorf("the peer's %s: %s", verb, out)
			}
		}
		if got := e.peer("layer", "m"); !strings.Contains(got, "Name: n") {
			t.Errorf("the peer's layer: %s", got)
		}
		if got := check(t, s, store.CheckOptions{Level: store.CheckFull}); got != "" {
			t.Errorf("not sound any more:\n%s", got)
		}
	})
}

// listing lists what is below dir.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, path); rel != "." {
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}
