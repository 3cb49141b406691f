package store_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// TestPodmanOnOurs: podman works on a store that holds our objects, at every
// step: an image with and without a layer, containers with and without an
// image, and it runs a container of our image.
func TestPodmanOnOurs(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		step := func(what string, err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			e.podman("images", "--all")
			e.podman("ps", "--all", "--external")
		}
		importLayer(t, s, store.LayerSpec{ID: strings.Repeat("ab", 32)}, busyboxTar(t))
		top := importLayer(t, s, store.LayerSpec{Parent: strings.Repeat("ab", 32)}, gzipped(t, makeTar(t, entry{name: "etc/"}, entry{name: "etc/two", text: "second layer\n"})))
		img, err := s.CreateMinimalImage(ctx, store.ImageSpec{Layer: top.ID, Names: []string{"localhost/app:latest"}})
		step("image", err)
		_, err = s.CreateMinimalImage(ctx, store.ImageSpec{Names: []string{"localhost/none:latest"}})
		step("image without layer", err)
		bare := get(t, s.CreateLayer, ctx, store.LayerSpec{})
		_, err = s.CreateMinimalImage(ctx, store.ImageSpec{Layer: bare.ID, Names: []string{"localhost/bare:latest"}})
		step("image of a layer without digest", err)
		_, err = s.CreateContainer(ctx, store.ContainerSpec{Image: img.ID, Names: []string{"web"}})
		step("container", err)
		_, err = s.CreateContainer(ctx, store.ContainerSpec{Names: []string{"alone"}})
		step("container without image", err)
		if out := e.podman("images", "--format", "{{.Repository}} {{.ID}}"); !strings.Contains(out, "localhost/app "+img.ID[:12]) {
			t.Errorf("podman lists %q", out)
		}
		if out := e.podman("ps", "-a", "--external", "--format", "{{.Names}}"); !strings.Contains(out, "web") {
			t.Errorf("podman lists %q", out)
		}
		checkInspect(t, e, img)
		args := []string{"run", "--rm", "--network=none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"}
		if out := e.podman(append(args, "localhost/app", "/bin/busybox", "cat", "/etc/two")...); out != "second layer\n" {
			t.Errorf("the container printed %q", out)
		}
		step("delete container", s.DeleteContainer(ctx, "web"))
		deleted, err := s.DeleteImage(ctx, "localhost/app:latest")
		step("delete image", err)
		if len(deleted) != 2 {
			t.Errorf("deleted layers %v, want both", deleted)
		}
	})
}

// busyboxTar is a root filesystem that can run, as an archive.
func busyboxTar(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	script := `mkdir -p bin etc tmp proc dev sys && cp /bin/busybox bin/ && ln -s busybox bin/sh && echo root:x:0:0:root:/:/bin/sh >etc/passwd && tar c .`
	c := exec.Command("sh", "-c", script)
	c.Dir = dir
	out, err := c.Output()
	if err != nil {
		t.Skipf("busybox-static is not installed: images of this test run it (%v)", err)
	}
	return out
}

func checkInspect(t *testing.T, e *lifeEnv, img *store.Image) {
	t.Helper()
	var list []struct {
		ID, Digest string
		RootFS     struct{ Layers []string }
	}
	if err := json.Unmarshal([]byte(e.podman("inspect", "localhost/app")), &list); err != nil || len(list) != 1 {
		t.Fatalf("podman inspect: %v", err)
	}
	if list[0].ID != img.ID || list[0].Digest != img.Digest.String() || len(list[0].RootFS.Layers) != 2 {
		t.Errorf("podman inspects %+v, want image %s %s with two layers", list[0], img.ID, img.Digest)
	}
}

// TestRecordsAsPeers: what we make has the records that containers-storage
// makes of the same wishes.
func TestRecordsAsPeers(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "base"})
		get(t, s.CreateImage, ctx, store.ImageSpec{ID: "ours", Layer: "base", Names: []string{"o"}, Metadata: "{}"})
		e.peer("create-image", "--id", "theirs", "-n", "t", "-m", "{}", "base")
		if diff := cmp.Diff(e.record(t, "images", "theirs"), e.record(t, "images", "ours")); diff != "" {
			t.Error(diff)
		}
		for _, image := range []string{"ours", ""} {
			c := get(t, s.CreateContainer, ctx, store.ContainerSpec{Image: image, Metadata: "m"})
			id, _, _ := strings.Cut(e.peer("create-container", "-m", "m", image), "\n")
			theirs, ours := e.record(t, "containers", id), e.record(t, "containers", c.ID)
			lt, lo := e.record(t, "layers", theirs["layer"].(string)), e.record(t, "layers", c.Layer)
			delete(theirs, "layer")
			delete(ours, "layer")
			if diff := cmp.Diff(theirs, ours); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(lt, lo); diff != "" {
				t.Error(diff)
			}
		}
		e.peer("create-layer", "--id", "theirbase")
		e.peer("create-layer", "--id", "theirtop", "theirbase")
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "ourtop", Parent: "base"})
		for theirs, ours := range map[string]string{"theirbase": "base", "theirtop": "ourtop"} {
			if e.driver == "vfs" { // the peers of 2022 make them 0555, later ones 0755, and so do we
				continue
			}
			if diff := cmp.Diff(ownStat(t, s, theirs), ownStat(t, s, ours)); diff != "" {
				t.Error(diff)
			}
		}
	})
}

// ownStat is mode and owner of a layer's own directory.
func ownStat(t testing.TB, s *store.Store, id string) string {
	t.Helper()
	dirs, err := s.Dirs(id)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no owner")
	}
	return fmt.Sprint(fi.Mode(), st.Uid, st.Gid)
}

// TestImageStore: objects of an additional store are used, but never changed.
func TestImageStore(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, ro *lifeEnv) {
		ctx := context.Background()
		s := ro.open()
		importLayer(t, s, store.LayerSpec{ID: "rolayer"}, makeTar(t, entry{name: "f", text: "f"}))
		get(t, s.CreateMinimalImage, ctx, store.ImageSpec{ID: "roimage", Layer: "rolayer", Names: []string{"n"}})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		before := treeSum(t, ro.root)
		e := newLifeEnv(t, ro.driver)
		e.imageStores = []string{ro.root}
		s = e.open()
		wantErr(t, s.DeleteLayer(ctx, "rolayer"), errno.ErrReadOnly, "rolayer")
		_, err := s.DeleteImage(ctx, "n")
		wantErr(t, err, errno.ErrReadOnly, "roimage")
		_, err = s.Mount(ctx, "rolayer", drivers.MountOptions{})
		wantErr(t, err, errno.ErrReadOnly, "rolayer")
		wantErr(t, s.SetBigData(ctx, store.KindImage, "n", "k", strings.NewReader("")), errno.ErrReadOnly, "roimage")
		wantErr(t, s.RemoveBigData(ctx, store.KindImage, "n", "manifest"), errno.ErrReadOnly, "roimage")
		_, err = s.StageDiff(ctx, "rolayer")
		wantErr(t, err, errno.ErrReadOnly, "rolayer")
		if !strings.Contains(readData(t, s, store.KindImage, "n", "manifest"), "schemaVersion") {
			t.Error("the manifest is not that of the other store")
		}
		get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ctr", Image: "roimage"})
		path, err := s.Mount(ctx, "ctr", drivers.MountOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(path, "f")); err != nil || string(b) != "f" {
			t.Errorf("the container shows %q, %v", b, err)
		}
		get(t, s.CreateMinimalImage, ctx, store.ImageSpec{ID: "mine", Layer: "rolayer"})
		if deleted, err := s.DeleteImage(ctx, "mine"); err != nil || len(deleted) != 0 {
			t.Errorf("deleted %v, %v", deleted, err)
		}
		if _, err := s.Unmount(ctx, "ctr", false); err != nil {
			t.Error(err)
		}
		if err := s.DeleteContainer(ctx, "ctr"); err != nil {
			t.Error(err)
		}
		if after := treeSum(t, ro.root); after != before {
			t.Error("the read-only store has changed")
		}
	})
}

// TestMountCountsShared: ours and the peers' mounts of one layer are counted
// together, whoever mounts first.
func TestMountCountsShared(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "layer", Names: []string{"n"}})
		ours, err := s.Mount(ctx, "n", drivers.MountOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if theirs := strings.TrimSpace(e.peer("mount", "layer")); theirs != ours {
			t.Fatalf("mounted at %s and %s", ours, theirs)
		}
		if err := os.WriteFile(filepath.Join(ours, "f"), []byte("f"), 0o600); err != nil {
			t.Fatal(err)
		}
		wantErr(t, s.DeleteLayer(ctx, "n"), errno.ErrInUse, ours)
		if n, err := s.Unmount(ctx, "layer", false); n != 1 || err != nil {
			t.Fatalf("after one unmount: %d, %v", n, err)
		}
		if out := e.peer("unmount", "layer"); !strings.Contains(out, "unmounted") {
			t.Fatalf("the peer's unmount says %q", out)
		}
		checkCount(t, s, "layer", 0)
		e.peer("mount", "layer")
		checkCount(t, s, "layer", 1)
		if path, err := s.Mount(ctx, "layer", drivers.MountOptions{}); err != nil || path != ours {
			t.Fatal(path, err)
		}
		checkCount(t, s, "layer", 2)
		e.peer("unmount", "layer")
		if n, err := s.Unmount(ctx, ours, false); n != 0 || err != nil { // by path
			t.Fatalf("after the last unmount: %d, %v", n, err)
		}
		if n, err := s.Unmount(ctx, "layer", false); n != 0 || err != nil {
			t.Fatalf("unmounting what is not mounted: %d, %v", n, err)
		}
		if out := e.peer("mounted", "layer"); strings.Contains(out, "mounted") {
			t.Errorf("the peer says %q", out)
		}
		e.peer("delete-layer", "layer")
	})
}

func checkCount(t testing.TB, s *store.Store, id string, want int) {
	t.Helper()
	err := s.View(context.Background(), func(tx *store.Tx) error {
		if m, _ := tx.Mountpoint(id); m.Count != want {
			t.Errorf("count %d, want %d", m.Count, want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestMountRules: nothing that others build on is mounted for writing, and no
// upper directory twice.
func TestMountRules(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		importLayer(t, s, store.LayerSpec{ID: "base"}, makeTar(t, entry{name: "f", text: "f"}))
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "top", Parent: "base"})
		get(t, s.CreateMinimalImage, ctx, store.ImageSpec{ID: "img", Layer: "top"})
		for _, ref := range []string{"base", "top", "img"} {
			_, err := s.Mount(ctx, ref, drivers.MountOptions{})
			wantErr(t, err, errno.ErrReadOnly, "")
			path, err := s.Mount(ctx, ref, drivers.MountOptions{ReadOnly: true})
			if err != nil {
				t.Fatalf("%s: %v", ref, err)
			}
			if b, err := os.ReadFile(filepath.Join(path, "f")); err != nil || string(b) != "f" {
				t.Errorf("%s shows %q, %v", ref, b, err)
			}
			if n, err := s.Unmount(ctx, ref, false); n != 0 || err != nil {
				t.Errorf("%s: %d, %v", ref, n, err)
			}
		}
		_, err := s.Mount(ctx, "nothing", drivers.MountOptions{})
		wantErr(t, err, errno.ErrUnknown, "nothing")
	})
}

// TestWrittenLayerForgetsDigests: a layer that was written to while mounted is
// not described by its digests; one that was only looked at is.
func TestWrittenLayerForgetsDigests(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		stream := makeTar(t, entry{name: "d/"}, entry{name: "d/f", text: "f"})
		for name, write := range map[string]func(string) error{
			"":       func(dir string) error { _, err := os.ReadFile(filepath.Join(dir, "d/f")); return err },
			"change": func(dir string) error { return os.WriteFile(filepath.Join(dir, "d/f"), []byte("g"), 0o600) },
			"add":    func(dir string) error { return os.WriteFile(filepath.Join(dir, "new"), nil, 0o600) },
			"remove": func(dir string) error { return os.RemoveAll(filepath.Join(dir, "d")) },
			"chmod":  func(dir string) error { return os.Chmod(filepath.Join(dir, "d/f"), 0o400) },
		} {
			l := importLayer(t, s, store.LayerSpec{ID: "written" + name}, stream)
			dir, err := s.Mount(ctx, l.ID, drivers.MountOptions{})
			if err == nil {
				err = write(dir)
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Unmount(ctx, l.ID, false); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			src := get(t, s.DiffTar, ctx, l.ID)
			_, err = src.WriteTo(&out)
			if err = errors.Join(err, src.Close()); err != nil {
				t.Error(err)
			}
			if same := bytes.Equal(out.Bytes(), stream); same != (name == "") {
				t.Errorf("%q: the diff is the imported stream: %v", name, same)
			}
			_, has := e.record(t, "layers", l.ID)["diff-digest"]
			if has != (name == "") {
				t.Errorf("%q: the record has a digest: %v", name, has)
			}
		}
	})
}

// TestBigData: items go both ways between us and the peers, for all kinds and
// awkward keys, and a record's sizes and digests are those of the bytes.
func TestBigData(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "base"})
		get(t, s.CreateMinimalImage, ctx, store.ImageSpec{ID: "img", Layer: "base"})
		get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ctr", Image: "img"})
		file := filepath.Join(t.TempDir(), "in")
		for k, id := range map[store.Kind]string{store.KindImage: "img", store.KindContainer: "ctr"} {
			for i, key := range []string{"manifest", "a.b", ".hid", "AB", "sha256:00", "日本", "a b", "=", "k-1", "é"} {
				text := strings.Repeat(fmt.Sprint(key, i), 1000*i)
				if err := s.SetBigData(ctx, k, id, key, strings.NewReader(text)); err != nil {
					t.Fatal(err)
				}
				if got := e.peer("get-"+k.String()+"-data", id, key); got != text {
					t.Errorf("%s %q: the peer reads %d bytes, want %d", k, key, len(got), len(text))
				}
				if got := strings.TrimSpace(e.peer("get-"+k.String()+"-data-digest", id, key)); got != digest.FromString(text).String() {
					t.Errorf("%s %q: digest %s", k, key, got)
				}
				text += "theirs"
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				e.peer("set-"+k.String()+"-data", "-f", file, id, key)
				if got := readData(t, s, k, id, key); got != text {
					t.Errorf("%s %q: we read %d bytes, want %d", k, key, len(got), len(text))
				}
			}
			if err := s.RemoveBigData(ctx, k, id, "k-1"); err != nil {
				t.Error(err)
			}
			if keys := strings.Split(e.peer("list-"+k.String()+"-data", id), "\n"); slices.Contains(keys, "k-1") || !slices.Contains(keys, "a b") {
				t.Errorf("the peer lists %q", keys)
			}
			_, err := s.BigData(ctx, k, id, "k-1")
			wantErr(t, err, errno.ErrUnknown, "k-1")
			wantErr(t, s.RemoveBigData(ctx, k, id, "k-1"), errno.ErrUnknown, "k-1")
			wantErr(t, s.SetBigData(ctx, k, id, "a/", strings.NewReader("")), errno.ErrBadValue, "a/")
		}
		if err := s.SetBigData(ctx, store.KindImage, "img", "manifest", strings.NewReader("{}")); err != nil {
			t.Error(err)
		}
		img := get(t, func(_ context.Context, id string) (img *store.Image, err error) {
			err = s.View(ctx, func(tx *store.Tx) error { img, err = tx.Image(id); return err })
			return img, err
		}, ctx, "img")
		if want := img.BigDataDigests["manifest"]; img.Digest != want {
			t.Errorf("the image's digest is %s, its manifest's %s", img.Digest, want)
		}
	})
}

func readData(t testing.TB, s *store.Store, k store.Kind, id, key string) string {
	t.Helper()
	f, err := s.BigData(context.Background(), k, id, key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestDirectories: the directories of a container are the peers', and go with it.
func TestDirectories(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := e.open()
		get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ctr", Names: []string{"n"}})
		dir, run := get(t, s.ContainerDir, ctx, "n"), get(t, s.ContainerRunDir, ctx, "n")
		if got := strings.TrimSpace(e.peer("get-container-dir", "n")); got != dir {
			t.Errorf("directory %s, the peer's %s", dir, got)
		}
		if got := strings.TrimSpace(e.peer("get-container-run-dir", "n")); got != run {
			t.Errorf("run directory %s, the peer's %s", run, got)
		}
		for _, d := range []string{dir, run} {
			if fi, err := os.Stat(d); err != nil || fi.Mode().Perm() != 0o700 {
				t.Errorf("%s: %v %v", d, fi, err)
			}
		}
		if err := s.DeleteContainer(ctx, "ctr"); err != nil {
			t.Fatal(err)
		}
		for _, d := range []string{dir, run} {
			if _, err := os.Stat(filepath.Dir(d)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is still there: %v", d, err)
			}
		}
		_, err := s.ContainerDir(ctx, "ctr")
		wantErr(t, err, errno.ErrUnknown, "ctr")
	})
}

// TestSweepsPeersLeftovers: a layer that a peer left incomplete is removed with
// its directories by the next opening.
func TestSweepsPeersLeftovers(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		e.peer("create-layer", "--id", "whole")
		e.peer("create-layer", "--id", "half")
		json := filepath.Join(e.root, e.driver+"-layers", "layers.json")
		b, err := os.ReadFile(json)
		if err == nil {
			b = bytes.Replace(b, []byte(`"id":"half"`), []byte(`"flags":{"incomplete":true},"id":"half"`), 1)
			err = os.WriteFile(json, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		m := e.snapshot(t)
		if _, there := m["layer half"]; there || m["layer whole"] == "" || strings.Contains(m["files"], "half") || !strings.Contains(m["files"], "driver/whole") {
			t.Errorf("after the sweep: %v", m)
		}
	})
}
