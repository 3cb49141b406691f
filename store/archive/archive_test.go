package archive_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/vfs"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
	"github.com/plyfs/plyfs/store/archive"
)

// world is a store of ours that the peers' programs can open.
type world struct {
	*testing.T
	dir string
	rr  string // the run root, short enough for podman
	s   *store.Store
	ctx context.Context
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, dir: t.TempDir(), ctx: context.Background()}
	var err error
	w.rr, err = os.MkdirTemp("", "r")
	w.must(err)
	t.Cleanup(func() { w.must(os.RemoveAll(w.rr)) })
	s, err := store.Open(w.ctx, store.Options{GraphRoot: w.dir + "/root", RunRoot: w.rr, DriverName: "vfs",
		NewDriver: func(c drivers.Config) (drivers.Driver, error) { return vfs.New(c) }})
	w.must(err)
	w.s = s
	t.Cleanup(func() { w.must(s.Close()) })
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// layerTar is an archive of files `name=content`; a name that ends in a slash
// is a directory.
func layerTar(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, f := range files {
		name, content, _ := strings.Cut(f, "=")
		h := &tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(content)), ModTime: time.Unix(1700000000, 0)}
		if strings.HasSuffix(name, "/") {
			h.Mode, h.Typeflag = 0o755, tar.TypeDir
		}
		if err := errors.Join(tw.WriteHeader(h), func() error { _, err := tw.Write([]byte(content)); return err }()); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// makeImage makes an image of two layers.
func (w *world) makeImage(names ...string) *store.Image {
	w.Helper()
	parent := ""
	for _, l := range [][]byte{layerTar(w.T, "etc/", "etc/a=1", "big="+strings.Repeat("0123456789", 20000)), layerTar(w.T, "etc/.wh.a=", "etc/b=2")} {
		st, err := w.s.StageLayer(w.ctx, store.LayerSpec{Parent: parent})
		w.must(err)
		_, err = st.Import(w.ctx, bytes.NewReader(l))
		w.must(err)
		rec, err := st.Commit(w.ctx)
		w.must(err)
		parent = rec.ID
	}
	img, err := w.s.CreateMinimalImage(w.ctx, store.ImageSpec{Layer: parent, Names: names, Metadata: "{}"})
	w.must(err)
	return img
}

func (w *world) export(docker bool, id string) []byte {
	w.Helper()
	var b bytes.Buffer
	write := archive.OCI
	if docker {
		write = archive.Docker
	}
	w.must(write(w.ctx, w.s, id, &b))
	return b.Bytes()
}

func (w *world) temp() (*os.File, error) { return os.CreateTemp(w.dir, "temp") }

func (w *world) load(data []byte) ([]string, error) {
	w.Helper()
	path := filepath.Join(w.dir, "in")
	w.must(os.WriteFile(path, data, 0o600))
	f, err := os.Open(path)
	w.must(err)
	ids, err := archive.Import(w.ctx, w.s, f, int64(len(data)), archive.Options{Temp: w.temp})
	w.must(f.Close())
	return ids, err
}

// content describes an image: names, configuration, and its layers' archives.
func (w *world) content(id string) string {
	w.Helper()
	var out strings.Builder
	var layers []string
	w.must(w.s.View(w.ctx, func(t *store.Tx) error {
		i := t.ImageByID(id)
		if i == nil {
			return fmt.Errorf("no image %s", id)
		}
		fmt.Fprintln(&out, i.ID, i.Names)
		for _, l := range t.Chain(i.TopLayer) {
			layers = append(layers, l.ID)
			fmt.Fprintln(&out, l.DiffDigest, l.DiffSize)
		}
		return nil
	}))
	for _, l := range layers {
		src, err := w.s.DiffTar(w.ctx, l)
		w.must(err)
		var b bytes.Buffer
		_, err = src.Copy(w.ctx, &b)
		w.must(errors.Join(err, src.Close()))
		fmt.Fprintf(&out, "%x\n", b.Bytes()[:min(b.Len(), 4096)])
	}
	return out.String()
}

func (w *world) layerIDs() (ids []string) {
	w.must(w.s.View(w.ctx, func(t *store.Tx) error { ids = t.IDs(store.KindLayer); return nil }))
	return ids
}

func (w *world) run(name string, args ...string) string {
	w.Helper()
	if _, err := exec.LookPath(name); err != nil {
		w.Skipf("no %s here", name)
	}
	conf := filepath.Join(w.dir, "storage.conf")
	w.must(os.WriteFile(conf, fmt.Appendf(nil, "[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", w.dir+"/root", w.rr), 0o600))
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CONTAINERS_STORAGE_CONF="+conf, "TMPDIR="+w.dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestRoundTrip: what is exported and imported again, here or into another
// store, has the same IDs, names and bytes; and so has its export.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, docker := range []bool{false, true} {
		t.Run(fmt.Sprint("docker=", docker), func(t *testing.T) {
			t.Parallel()
			w, other := newWorld(t), newWorld(t)
			img := w.makeImage("localhost/two:1", "localhost/one:latest")
			data := w.export(docker, img.ID)
			before := w.layerIDs()
			ids, err := w.load(data)
			w.must(err)
			if !slices.Equal(ids, []string{img.ID}) || !slices.Equal(w.layerIDs(), before) {
				t.Errorf("imported where it is: %q and layers %q, want %s and %q", ids, w.layerIDs(), img.ID, before)
			}
			ids, err = other.load(data)
			w.must(err)
			if got, want := other.content(ids[0]), w.content(img.ID); got != want {
				t.Errorf("in another store it is\n%.900s\nwant\n%.900s", got, want)
			}
			if again := other.export(docker, ids[0]); !bytes.Equal(again, data) {
				t.Errorf("exported again it has %d bytes, not the same %d", len(again), len(data))
			}
			// Packed as a whole.
			var gz, zs bytes.Buffer
			z := gzip.NewWriter(&gz)
			_, err = z.Write(data)
			w.must(errors.Join(err, z.Close()))
			zz, err := zstd.NewWriter(&zs)
			w.must(err)
			_, err = zz.Write(data)
			w.must(errors.Join(err, zz.Close()))
			for _, packed := range [][]byte{gz.Bytes(), zs.Bytes()} {
				third := newWorld(t)
				ids, err := third.load(packed)
				w.must(err)
				if third.content(ids[0]) != w.content(img.ID) {
					t.Error("packed as a whole it is another")
				}
				if _, err := newWorld(t).load(packed[:len(packed)-20]); !errors.Is(err, errno.ErrBadStream) {
					t.Errorf("packed and cut off: %v", err)
				}
			}
		})
	}
}

// TestPeersTakeOurs: skopeo copies our archives into a store of the peers, and
// makes the same IDs as our import.
func TestPeersTakeOurs(t *testing.T) {
	t.Parallel()
	for transport, docker := range map[string]bool{"oci-archive": false, "docker-archive": true} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			w, ours, theirs := newWorld(t), newWorld(t), newWorld(t)
			img := w.makeImage("localhost/app:1")
			data := w.export(docker, img.ID)
			_, err := ours.load(data)
			w.must(err)
			file := filepath.Join(theirs.dir, "image.tar")
			w.must(os.WriteFile(file, data, 0o600))
			theirs.run("skopeo", "copy", "-q", transport+":"+file, "containers-storage:localhost/app:1")
			if got, want := theirs.layerIDs(), ours.layerIDs(); !slices.Equal(got, want) {
				t.Errorf("skopeo made the layers %q, we %q", got, want)
			}
			if got, want := theirs.content(img.ID), ours.content(img.ID); got != want {
				t.Errorf("skopeo made\n%.900s\nwe\n%.900s", got, want)
			}
			if out := ours.run("podman", "--root", ours.dir+"/root", "--runroot", ours.rr, "--storage-driver", "vfs", "images", "--no-trunc"); !strings.Contains(out, img.ID) {
				t.Errorf("podman images does not list what we imported:\n%s", out)
			}
		})
	}
}

// TestWeTakeTheirs imports what skopeo and podman write.
func TestWeTakeTheirs(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"oci-archive", "docker-archive", "oci", "save-docker", "save-oci"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			w, other := newWorld(t), newWorld(t)
			img := w.makeImage("localhost/app:1")
			file := filepath.Join(w.dir, "image")
			if format, ok := strings.CutPrefix(transport, "save-"); ok {
				w.run("podman", "--root", w.dir+"/root", "--runroot", w.rr, "--storage-driver", "vfs", "save", "-q", "--format", format+"-archive", "-o", file, "localhost/app:1")
			} else {
				w.run("skopeo", "copy", "-q", "containers-storage:localhost/app:1", transport+":"+file+":localhost/app:1")
			}
			var ids []string
			var err error
			if transport == "oci" {
				ids, err = archive.ImportFolder(other.ctx, other.s, file, archive.Options{})
			} else {
				data, rerr := os.ReadFile(file)
				w.must(rerr)
				ids, err = other.load(data)
			}
			w.must(err)
			if !slices.Equal(ids, []string{img.ID}) {
				t.Fatalf("imported %q, want %s", ids, img.ID)
			}
			if got, want := other.content(img.ID), w.content(img.ID); got != want {
				t.Errorf("imported\n%.900s\nwant\n%.900s", got, want)
			}
		})
	}
}

// TestBadArchives: what is broken is refused, and leaves nothing; so it is by a
// store that has all of the image already.
func TestBadArchives(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	img := w.makeImage("localhost/app:1")
	before := w.layerIDs()
	for _, docker := range []bool{false, true} {
		good := w.export(docker, img.ID)
		broken := map[string][]byte{
			"empty": {}, "junk": []byte(strings.Repeat("junk ", 1000)), "half": good[:len(good)/2], "cut": good[:len(good)-5000],
			"a layer's byte": bytes.Replace(good, []byte("0123456789"), []byte("0123456789"[:9]+"x"), 1),
			"the config":     bytes.Replace(good, []byte(`"os":"linux"`), []byte(`"os":"l1nux"`), 1),
			"no member":      layerTar(t, "index.json={}"), "no images": layerTar(t, "manifest.json=[]"),
			"not there": layerTar(t, `manifest.json=[{"Config":"c","Layers":["x"]}]`),
			"upwards":   layerTar(t, `manifest.json=[{"Config":"../../etc/passwd","Layers":[]}]`),
		}
		if docker { // its configuration is what its digest is taken from
			delete(broken, "the config")
		}
		for what, data := range broken {
			if bytes.Equal(data, good) {
				t.Fatalf("%s is not broken", what)
			}
			if ids, err := w.load(data); !errors.Is(err, errno.ErrBadStream) {
				t.Errorf("docker=%t, %s, where the image is: %q, %v", docker, what, ids, err)
			}
			other := newWorld(t)
			if ids, err := other.load(data); !errors.Is(err, errno.ErrBadStream) {
				t.Errorf("docker=%t, %s: %q, %v", docker, what, ids, err)
			}
			if l := other.layerIDs(); len(l) > 0 {
				t.Errorf("docker=%t, %s: left the layers %q", docker, what, l)
			}
			if left, err := filepath.Glob(other.dir + "/root/plyfs/*/*"); err != nil || len(left) > 0 {
				t.Errorf("docker=%t, %s: left %q", docker, what, left)
			}
		}
		if ids, err := w.load(good); err != nil || !slices.Equal(ids, []string{img.ID}) || !slices.Equal(w.layerIDs(), before) {
			t.Errorf("docker=%t, the good one where the image is: %q, %v; layers %q, were %q", docker, ids, err, w.layerIDs(), before)
		}
	}
}

// savedImage is the part of an archive in the form of docker-save for one
// image of one layer.
func savedImage(t *testing.T, n int, bad bool) (entry string, members []string) {
	content := string(layerTar(t, fmt.Sprintf("f%d=content", n)))
	diff := digest.FromString(content)
	if bad {
		diff = digest.FromString("something else")
	}
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%q]}}`, diff)
	entry = fmt.Sprintf(`{"Config":"c%d.json","RepoTags":["localhost/app%d:1"],"Layers":["l%d.tar"]}`, n, n, n)
	return entry, []string{fmt.Sprintf("c%d.json=%s", n, config), fmt.Sprintf("l%d.tar=%s", n, content)}
}

// TestSeveralImagesOrNone: an archive of several images is taken whole or not
// at all, names that would have moved included.
func TestSeveralImagesOrNone(t *testing.T) {
	t.Parallel()
	for bad := range 4 { // 3: none
		w := newWorld(t)
		mine := w.makeImage("localhost/app0:1", "localhost/mine:1")
		before := w.layerIDs()
		var entries, members []string
		for n := range 3 {
			e, m := savedImage(t, n, n == bad)
			entries, members = append(entries, e), append(members, m...)
		}
		ids, err := w.load(layerTar(t, append(members, "manifest.json=["+strings.Join(entries, ",")+"]")...))
		var images int
		var owner string
		w.must(w.s.View(w.ctx, func(t *store.Tx) error {
			images = t.Len(store.KindImage)
			owner, _ = t.ByName(store.KindImage, "localhost/app0:1")
			return nil
		}))
		if bad == 3 {
			if err != nil || len(ids) != 3 || images != 4 || owner != ids[0] || len(w.layerIDs()) != len(before)+3 {
				t.Errorf("all good: %q, %v; %d images, app0 is %s", ids, err, images, owner)
			}
			continue
		}
		if !errors.Is(err, errno.ErrBadStream) || images != 1 || owner != mine.ID || !slices.Equal(before, w.layerIDs()) {
			t.Errorf("image %d is bad: %q, %v; %d images, app0 is %s, layers %q", bad, ids, err, images, owner, w.layerIDs())
		}
	}
}

// TestNamesMove: a name in an archive belongs to what is imported last.
func TestNamesMove(t *testing.T) {
	t.Parallel()
	w, other := newWorld(t), newWorld(t)
	data := w.export(false, w.makeImage("localhost/app:1").ID)
	old := other.makeImage("localhost/app:1", "localhost/kept:1")
	ids, err := other.load(data)
	w.must(err)
	w.must(other.s.View(w.ctx, func(t *store.Tx) error {
		id, _ := t.ByName(store.KindImage, "localhost/app:1")
		kept, _ := t.ByName(store.KindImage, "localhost/kept:1")
		if id != ids[0] || kept != old.ID {
			return fmt.Errorf("app is %s, kept %s", id, kept)
		}
		return nil
	}))
	refuse := archive.Options{CheckName: func(string) error { return errno.New(errno.ErrBadValue, "no") }}
	f, err := os.Open(filepath.Join(other.dir, "in"))
	w.must(err)
	if _, err := archive.Import(w.ctx, newWorld(t).s, f, int64(len(data)), refuse); !errors.Is(err, errno.ErrBadValue) {
		t.Errorf("a refused name: %v", err)
	}
	w.must(f.Close())
}

// FuzzImport: no archive does anything but be imported or refused.
func FuzzImport(f *testing.F) {
	f.Add([]byte("{}"), []byte("[]"), []byte("x"))
	f.Add([]byte(`{"manifests":[{"digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","size":1}]}`), []byte(""), []byte("x"))
	f.Add([]byte(""), []byte(`[{"Config":"blobs/sha256/2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","RepoTags":["a"],"Layers":["index.json"]}]`), []byte("x"))
	dir := f.TempDir()
	s, err := store.Open(context.Background(), store.Options{GraphRoot: dir + "/root", RunRoot: dir + "/run", DriverName: "vfs"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := s.Close(); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, index, manifest, blob []byte) {
		files := []string{"blobs/sha256/2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881=" + string(blob)}
		if len(index) > 0 {
			files = append(files, "index.json="+string(index))
		}
		if len(manifest) > 0 {
			files = append(files, "manifest.json="+string(manifest))
		}
		data := layerTar(t, files...)
		path := filepath.Join(t.TempDir(), "in")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close() //nolint:errcheck // read only
		_, err = archive.Import(context.Background(), s, in, int64(len(data)), archive.Options{Temp: func() (*os.File, error) { return os.CreateTemp(t.TempDir(), "x") }})
		if no := errno.Of(err); no == errno.Of(errors.New("any other")) {
			t.Errorf("an error of no kind: %v", err)
		}
	})
}
