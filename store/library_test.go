package store_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// want fails the test unless err is of the kind; nil means no error.
func want(t testing.TB, err error, kind error) {
	t.Helper()
	if kind == nil && err != nil || kind != nil && !errors.Is(err, kind) {
		t.Errorf("error %v, want %v", err, kind)
	}
}

// field returns the value of a line `name: value` of a peer's output.
func field(out, name string) string {
	for line := range strings.Lines(out) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// A reference of any kind finds what the peer finds by it.
func TestFindAsPeer(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		e.peer("create-layer", "--id", "lay", "-n", "x", "-n", "only-layer")
		e.peer("create-image", "--id", "img", "-n", "x", "-n", "y", "-m", "of image", "lay")
		e.peer("create-container", "--id", "ctr", "-n", "x", "-n", "y", "-n", "z", "-m", "of container", "img")
		if err := s.Update(ctx, func(w *store.WriteTx) error { return w.SetMetadata(store.KindLayer, "lay", "of layer") }); err != nil {
			t.Fatal(err)
		}
		for _, ref := range []string{"x", "y", "z", "lay", "img", "ctr", "only-layer", "nothing"} {
			theirs, terr := e.tryPeer("metadata", "-q", ref)
			var ours string
			view(t, s, func(tx *store.Tx) error {
				k, id, err := tx.Find(ref)
				if (err == nil) != (terr == nil) {
					t.Errorf("%s: ours %v, theirs %v", ref, err, terr)
				}
				if err == nil {
					ours, _ = tx.Metadata(k, id)
				}
				return nil
			})
			if terr == nil && ours != strings.TrimSpace(theirs) {
				t.Errorf("%s: ours %q, theirs %q", ref, ours, theirs)
			}
		}
		view(t, s, func(tx *store.Tx) error {
			if k, id, err := tx.Find("ct"); err != nil || k != store.KindContainer || id != "ctr" {
				t.Errorf("beginning of an ID: %v %s %v", k, id, err)
			}
			if !tx.Exists(store.KindImage, "im") || tx.Exists(store.KindImage, "lay") || tx.Exists(store.KindLayer, "") {
				t.Error("Exists is wrong")
			}
			return nil
		})
	})
}

// Delete removes the same thing as the peer's, without a question.
func TestDeleteAnyAsPeer(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		fill := func() {
			e.peer("create-layer", "--id", "lay", "-n", "x")
			e.peer("create-layer", "--id", "child", "lay")
			e.peer("create-image", "--id", "img", "-n", "x", "lay")
			e.peer("create-container", "--id", "ctr", "-n", "x", "img")
		}
		left := func() string {
			out := ""
			view(t, s, func(tx *store.Tx) error {
				for k := range store.Kind(3) {
					out += fmt.Sprintf("%s:%d ", k.Plural(), tx.Len(k))
				}
				return nil
			})
			return out
		}
		var theirs, ours []string
		fill()
		for range 3 {
			e.peer("delete", "x")
			theirs = append(theirs, left())
		}
		_, err := e.tryPeer("delete", "x")
		if err == nil {
			t.Error("the peer deletes what is not there")
		}
		e.peer("delete", "child")
		fill()
		get(t, func(ctx context.Context, ref string) (string, error) {
			return s.Mount(ctx, ref, drivers.MountOptions{})
		}, ctx, "ctr")
		for range 3 {
			want(t, s.Delete(ctx, "x"), nil)
			ours = append(ours, left())
		}
		want(t, s.Delete(ctx, "x"), errno.ErrUnknown)
		if diff := cmp.Diff(theirs, ours); diff != "" {
			t.Error(diff)
		}
		view(t, s, func(tx *store.Tx) error {
			if len(tx.Mounts()) != 0 {
				t.Errorf("still counted as mounted: %v", tx.Mounts())
			}
			return nil
		})
		if left := mountsBelow(t, filepath.Join(e.root, e.driver)); len(left) > 0 && e.driver == "overlay" && slices.ContainsFunc(left, func(m string) bool { return strings.HasSuffix(m, "/merged") }) {
			t.Errorf("still mounted: %v", left)
		}
	})
}

// mountsBelow are the mount points below dir.
func mountsBelow(t testing.TB, dir string) []string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			out = append(out, f[1])
		}
	}
	return out
}

// The dry run tells what deleting an image then deletes, and deletes nothing.
func TestDeletable(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "base"})
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "mid", Parent: "base"})
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "top", Parent: "mid"})
		get(t, s.CreateImage, ctx, store.ImageSpec{ID: "one", Layer: "top"})
		get(t, s.CreateImage, ctx, store.ImageSpec{ID: "two", Layer: "base"})
		get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ctr", Image: "one"})
		dry := func(ref string) (ids []string, err error) {
			view(t, s, func(tx *store.Tx) error {
				ids, err = tx.Deletable(ref)
				return nil
			})
			return ids, err
		}
		_, err := dry("one")
		want(t, err, errno.ErrInUse)
		want(t, s.DeleteContainer(ctx, "ctr"), nil)
		_, err = dry("nothing")
		want(t, err, errno.ErrUnknown)
		planned, err := dry("one")
		want(t, err, nil)
		var theirs map[string]map[string][]string
		want(t, json.Unmarshal([]byte(e.peer("delete-image", "--test", "-j", "one")), &theirs), nil)
		done, err := s.DeleteImage(ctx, "one")
		want(t, err, nil)
		if diff := cmp.Diff(planned, done); diff != "" || !slices.Equal(planned, []string{"top", "mid"}) {
			t.Errorf("planned %v, done %v", planned, done)
		}
		if diff := cmp.Diff(theirs["one"]["deleted-layers"], done); diff != "" {
			t.Errorf("the peer would have deleted others: %s", diff)
		}
	})
}

// Sizes are those that the peer tells.
func TestSizesAsPeer(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		importLayer(t, s, store.LayerSpec{ID: "base"}, makeTar(t, entry{name: "etc/"}, entry{name: "etc/one", text: strings.Repeat("x", 3000)}))
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "bare", Parent: "base"})
		get(t, s.CreateImage, ctx, store.ImageSpec{ID: "img", Layer: "base", BigData: []store.BigDataItem{{Key: "k", Data: make([]byte, 77)}}})
		get(t, s.CreateImage, ctx, store.ImageSpec{ID: "none", BigData: []store.BigDataItem{{Key: "k", Data: make([]byte, 55)}}})
		get(t, s.CreateImage, ctx, store.ImageSpec{ID: "two", Layer: "bare"})
		e.peer("create-layer", "--id", "unsealed", "base")
		for _, path := range strings.Fields(e.peer("mount", "unsealed")) {
			want(t, os.WriteFile(filepath.Join(path, "f"), make([]byte, 3333), 0o644), nil)
		}
		e.peer("unmount", "unsealed")
		e.peer("create-image", "--id", "three", "unsealed")
		get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ctr", Image: "img", BigData: []store.BigDataItem{{Key: "k", Data: make([]byte, 5)}}})
		for _, img := range []string{"img", "none", "two", "three"} {
			ours := get(t, s.ImageSize, ctx, img)
			if theirs := field(e.peer("image", img), "Size"); theirs != strconv.FormatInt(ours, 10) {
				t.Errorf("image %s: ours %d, theirs %s", img, ours, theirs)
			}
		}
		_, err := s.ImageSize(ctx, "nothing")
		want(t, err, errno.ErrUnknown)
		dir, err := s.Mount(ctx, "ctr", drivers.MountOptions{})
		want(t, err, nil)
		for path, size := range map[string]int{
			filepath.Join(dir, "new"): 5000, filepath.Join(dir, "etc/one"): 3,
			filepath.Join(get(t, s.ContainerDir, ctx, "ctr"), "f"):    700,
			filepath.Join(get(t, s.ContainerRunDir, ctx, "ctr"), "f"): 300,
		} {
			want(t, os.WriteFile(path, make([]byte, size), 0o644), nil)
		}
		ours := get(t, s.ContainerSize, ctx, "ctr")
		if theirs := field(e.peer("container", "ctr"), "Size"); theirs != strconv.FormatInt(ours, 10) || ours != 5+5000+3+700+300 {
			t.Errorf("container: ours %d, theirs %s", ours, theirs)
		}
		view(t, s, func(tx *store.Tx) error {
			if n, ok := tx.LayerSize("base"); !ok || n < 3000 {
				t.Errorf("size of a filled layer: %d %v", n, ok)
			}
			if n, ok := tx.LayerSize("bare"); ok {
				t.Errorf("size of an empty layer: %d", n)
			}
			return nil
		})
	})
}

// Big data of each kind: keys, sizes, digests, replaced and removed; the peer
// agrees on those that it has commands for.
func TestBigDataOfEveryKind(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "lay"})
		get(t, s.CreateImage, ctx, store.ImageSpec{ID: "img", Layer: "lay"})
		get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ctr", Image: "img"})
		for k, id := range map[store.Kind]string{store.KindLayer: "lay", store.KindImage: "img", store.KindContainer: "ctr"} {
			text := "content of " + id
			for _, content := range []string{"old", text} {
				want(t, s.SetBigData(ctx, k, id, "key", strings.NewReader(content)), nil)
			}
			size, d, err := s.BigDataInfo(ctx, k, id, "key")
			want(t, err, nil)
			if size != int64(len(text)) || d != digest.FromString(text) {
				t.Errorf("%s: %d %s", k, size, d)
			}
			view(t, s, func(tx *store.Tx) error {
				if keys, err := tx.BigDataKeys(k, id); err != nil || !slices.Equal(keys, []string{"key"}) {
					t.Errorf("%s: keys %v %v", k, keys, err)
				}
				return nil
			})
			if k != store.KindLayer {
				if out := e.peer("get-"+k.String()+"-data-digest", id, "key"); strings.TrimSpace(out) != d.String() {
					t.Errorf("%s: the peer's digest is %q", k, out)
				}
				if out := e.peer("get-"+k.String()+"-data-size", id, "key"); strings.TrimSpace(out) != strconv.FormatInt(size, 10) {
					t.Errorf("%s: the peer's size is %q", k, out)
				}
			}
			_, _, err = s.BigDataInfo(ctx, k, id, "none")
			want(t, err, errno.ErrUnknown)
			want(t, s.RemoveBigData(ctx, k, id, "key"), nil)
			_, err = s.BigData(ctx, k, id, "key")
			want(t, err, errno.ErrUnknown)
		}
	})
}

// Layers are found by each of their digests, and by that one only.
func TestLayersByEachDigest(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	c, u, toc := digest.FromString("c"), digest.FromString("u"), digest.FromString("t")
	p.write(t, store.KindLayer, fmt.Sprintf(`[{"id":"a","compressed-diff-digest":%q,"diff-digest":%q,"toc-digest":%q},{"id":"b","diff-digest":%q}]`, c, u, toc, c))
	view(t, s, func(tx *store.Tx) error {
		for _, step := range []struct {
			of   func(digest.Digest) []*store.Layer
			d    digest.Digest
			want string
		}{
			{tx.LayersByCompressedDigest, c, "a"}, {tx.LayersByUncompressedDigest, u, "a"}, {tx.LayersByTOCDigest, toc, "a"},
			{tx.LayersByUncompressedDigest, c, "b"}, {tx.LayersByCompressedDigest, u, ""}, {tx.LayersByTOCDigest, c, ""},
		} {
			got := ""
			for _, l := range step.of(step.d) {
				got += l.ID
			}
			if got != step.want {
				t.Errorf("%s: %q, want %q", step.d, got, step.want)
			}
		}
		return nil
	})
}

// Files in the directories that are the users' own: written, read, in folders,
// never outside, and where the peer looks for them.
func TestUserFiles(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		get(t, s.CreateImage, ctx, store.ImageSpec{ID: "img"})
		get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ctr", Image: "img"})
		for d, ref := range map[store.UserDir]string{
			store.DirOfContainer: "ctr", store.RunDirOfContainer: "ctr", store.DirOfImage: "img", store.RunDirOfImage: "img",
		} {
			for _, text := range []string{"old", "new"} {
				want(t, s.WriteUserFile(ctx, d, ref, "a/b/c", []byte(text)), nil)
			}
			f, err := s.OpenUserFile(ctx, d, ref, "a/b/c")
			want(t, err, nil)
			text, err := io.ReadAll(f)
			if err != nil || string(text) != "new" || f.Close() != nil {
				t.Errorf("%d: read %q %v", d, text, err)
			}
			dir, err := s.UserDirPath(ctx, d, ref)
			want(t, err, nil)
			if found, err := filepath.Glob(filepath.Join(dir, "a/b/.*")); err != nil || len(found) > 0 {
				t.Errorf("left: %v %v", found, err)
			}
			want(t, os.Symlink("/etc", filepath.Join(dir, "out")), nil)
			for _, name := range []string{"../x", "/x", "", ".", "a/../../x"} {
				want(t, s.WriteUserFile(ctx, d, ref, name, nil), errno.ErrBadValue)
			}
			if _, err := s.OpenUserFile(ctx, d, ref, "out/passwd"); err == nil {
				t.Error("a symlink leads out of the directory")
			}
			_, err = s.OpenUserFile(ctx, d, ref, "none")
			want(t, err, errno.ErrUnknown)
			_, err = s.OpenUserFile(ctx, d, "nothing", "none")
			want(t, err, errno.ErrUnknown)
		}
		for command, d := range map[string]store.UserDir{"get-container-dir": store.DirOfContainer, "get-container-run-dir": store.RunDirOfContainer} {
			dir, err := s.UserDirPath(ctx, d, "ctr")
			if theirs := strings.TrimSpace(e.peer(command, "ctr")); err != nil || theirs != dir {
				t.Errorf("ours %s %v, theirs %s", dir, err, theirs)
			}
		}
	})
}

// The owners above a mount point that a map does not know are those that the
// peer tells.
func TestParentOwnersAsPeer(t *testing.T) {
	t.Parallel()
	e := newLifeEnv(t, "vfs")
	ctx := context.Background()
	e.root = filepath.Join(e.root, "sub", "root")
	want(t, os.MkdirAll(e.root, 0o755), nil)
	want(t, os.Chown(filepath.Dir(e.root), 1234, 77), nil)
	e.peer("create-layer", "--id", "plain")
	e.peer("create-layer", "--id", "mapped", "--uidmap", "0:1234:10", "--gidmap", "0:5:1")
	e.peer("create-container", "--id", "ctr", "--uidmap", "0:1234:10", "--gidmap", "0:77:10", "")
	s := e.open()
	owners := func(ref string) string {
		u, g, err := s.ParentOwners(ctx, ref)
		want(t, err, nil)
		return fmt.Sprintf("%d %d", u, g)
	}
	if got := owners("mapped"); got != "[] []" {
		t.Errorf("not mounted: %s", got)
	}
	for ref, command := range map[string]string{"plain": "layer", "mapped": "layer", "ctr": "container"} {
		e.peer("mount", ref)
		out := e.peer(command+"-parent-owners", ref)
		list := func(name string) string {
			if v := field(out, name); v != "" {
				return v
			}
			return "[]"
		}
		if theirs := list("UIDs") + " " + list("GIDs"); theirs != owners(ref) {
			t.Errorf("%s: ours %s, theirs %s", ref, owners(ref), theirs)
		}
	}
	_, _, err := s.ParentOwners(ctx, "nothing")
	want(t, err, errno.ErrUnknown)
}

// Shutdown without force changes nothing while something is mounted, and with
// force leaves no mount; the peer finds none either.
func TestShutdownAndWipe(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		importLayer(t, s, store.LayerSpec{ID: "base"}, makeTar(t, entry{name: "f", text: "x"}))
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "top", Parent: "base"})
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "free", Parent: "top"})
		get(t, s.CreateImage, ctx, store.ImageSpec{ID: "img", Layer: "top", BigData: []store.BigDataItem{{Key: "k", Data: []byte("d")}}})
		for _, id := range []string{"c1", "c2"} {
			c := get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: id, Image: "img"})
			for range 2 {
				dir, err := s.Mount(ctx, id, drivers.MountOptions{})
				want(t, err, nil)
				view(t, s, func(tx *store.Tx) error {
					m, err := tx.Mounted(id)
					if by, err2 := tx.Mounted(dir); err != nil || err2 != nil || m != by || m.Path != dir || tx.Mounts()[c.Layer] != m {
						t.Errorf("mounted: %v %v, by path %v %v", m, err, by, err2)
					}
					return nil
				})
			}
		}
		mounted, err := s.Shutdown(ctx, false, nil)
		want(t, err, errno.ErrInUse)
		if len(mounted) != 2 || !strings.Contains(e.peer("mounted", "c1"), "c1 mounted") {
			t.Errorf("mounted: %v", mounted)
		}
		var steps []string
		at := func(done, all int) { steps = append(steps, fmt.Sprintf("%d/%d", done, all)) }
		mounted, err = s.Shutdown(ctx, true, at)
		want(t, err, nil)
		if len(mounted) != 0 || len(mountsBelow(t, e.root)) > 0 || strings.Contains(e.peer("mounted", "c1"), "c1 mounted") {
			t.Errorf("still mounted: %v %v", mounted, mountsBelow(t, e.root))
		}
		_, err = s.Mount(ctx, "c2", drivers.MountOptions{})
		want(t, err, nil)
		want(t, s.Wipe(ctx, at), nil)
		// two mounts; then two containers with their layers, an image, three layers
		if got := strings.Join(steps, " "); got != "0/2 1/2 0/8 1/8 2/8 3/8 4/8 5/8" {
			t.Errorf("progress: %s", got)
		}
		for _, what := range []string{"layers", "images", "containers"} {
			if out := e.peer(what); out != "" {
				t.Errorf("%s are left: %s", what, out)
			}
		}
		e.onlyEmpty(t)
	})
}

// onlyEmpty fails the test for anything that an empty store does not hold.
func (e *lifeEnv) onlyEmpty(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{"*-layers/*", "*-images/*", "*-containers/*", "plyfs/*", "vfs/dir/*", "overlay/l/*", "overlay/????*"} {
		found, err := filepath.Glob(filepath.Join(e.root, pattern))
		want(t, err, nil)
		for _, path := range found {
			switch filepath.Ext(path) {
			case ".json", ".lock", ".has-mount-program":
			default:
				t.Errorf("left: %s", path)
			}
		}
	}
	if b, err := os.ReadFile(filepath.Join(e.run, e.driver+"-layers", "mountpoints.json")); err == nil && !bytes.Equal(b, []byte("[]")) {
		t.Errorf("mount counts are left: %s", b)
	}
}

// An image is mounted for reading, with options, and its count is the peer's.
func TestMountImageAsPeer(t *testing.T) {
	t.Parallel()
	e := newLifeEnv(t, "overlay")
	ctx := context.Background()
	s := e.open()
	importLayer(t, s, store.LayerSpec{ID: "base"}, makeTar(t, entry{name: "f", text: "x"}))
	get(t, s.CreateImage, ctx, store.ImageSpec{ID: "img", Layer: "base"})
	get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ctr", Image: "img"})
	path, err := s.MountImage(ctx, "img", drivers.MountOptions{Options: []string{"noexec"}})
	want(t, err, nil)
	if theirs := strings.TrimSpace(e.peer("mount", "-r", "img")); theirs != path {
		t.Errorf("ours %s, theirs %s", path, theirs)
	}
	if err := os.WriteFile(filepath.Join(path, "f"), nil, 0o644); !errors.Is(err, syscall.EROFS) {
		t.Errorf("an image can be written: %v", err)
	}
	_, err = s.MountImage(ctx, "ctr", drivers.MountOptions{})
	want(t, err, errno.ErrUnknown)
	for left := range 2 {
		n, err := s.UnmountImage(ctx, "img", false)
		want(t, err, nil)
		if n != 1-left {
			t.Errorf("%d users are left, want %d", n, 1-left)
		}
	}
	if left := mountsBelow(t, e.root+"/overlay"); len(left) > 0 {
		t.Errorf("still mounted: %v", left)
	}
}

// Who holds a digest's lock keeps others out, of this process and any.
func TestLockDigest(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	ctx := context.Background()
	d, other := digest.FromString("one"), digest.FromString("two")
	unlock := get(t, s.LockDigest, ctx, d)
	second := p.open(t, func(o *store.Options) { o.LockTimeout = 50 * time.Millisecond })
	_, err := second.LockDigest(ctx, d)
	want(t, err, errno.ErrTimeout)
	want(t, get(t, second.LockDigest, ctx, other)(), nil)
	want(t, unlock(), nil)
	want(t, get(t, second.LockDigest, ctx, d)(), nil)
	_, err = s.LockDigest(ctx, "../../x")
	want(t, err, errno.ErrBadValue)
}
