package store_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/store"
)

// someMaps map IDs 0 to 65535.
func someMaps(uid, gid int) idmap.Maps {
	return idmap.Maps{
		UIDs: []idmap.Range{{ContainerID: 0, HostID: uid, Size: 65536}},
		GIDs: []idmap.Range{{ContainerID: 0, HostID: gid, Size: 65536}},
	}
}

// ownedTar is an archive whose files have owners: "NAME UID GID", a name with
// a slash at its end being a directory.
func ownedTar(t testing.TB, lines ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, line := range lines {
		h := &tar.Header{Mode: 0o4751, Typeflag: tar.TypeReg, Size: 4}
		if _, err := fmt.Sscan(line, &h.Name, &h.Uid, &h.Gid); err != nil {
			t.Fatal(err)
		}
		if name, to, ok := strings.Cut(h.Name, "="); ok {
			h.Name, h.Linkname, h.Typeflag, h.Size = name, to, tar.TypeLink, 0
		}
		if strings.HasSuffix(h.Name, "/") {
			h.Mode, h.Typeflag, h.Size = 0o755, tar.TypeDir, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("text")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// owners lists a tree as "PATH MODE UID:GID", the root left out.
func owners(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		rel, _ := filepath.Rel(root, path)
		out = append(out, fmt.Sprintf("%s %o %d:%d", rel, st.Mode&0o7777, st.Uid, st.Gid))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// mounted runs fn on the mounted ref.
func mounted(t testing.TB, s *store.Store, ref string, fn func(dir string)) {
	t.Helper()
	ctx := context.Background()
	dir, err := s.Mount(ctx, ref, drivers.MountOptions{})
	if errors.Is(err, errno.ErrReadOnly) { // what others are made on is looked at
		dir, err = s.Mount(ctx, ref, drivers.MountOptions{ReadOnly: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	fn(dir)
	if _, err := s.Unmount(ctx, ref, false); err != nil {
		t.Fatal(err)
	}
}

// mappedStore holds image img of two layers with owners, an opaque directory,
// a removed file and a hard link; the driver does not map when it mounts.
func mappedStore(t testing.TB, e *lifeEnv) *store.Store {
	t.Helper()
	e.noShift = true
	s := e.open()
	importLayer(t, s, store.LayerSpec{ID: "base"}, ownedTar(t, "etc/ 0 0", "etc/one 1 2", "etc/gone 0 0", "opaque/ 3 3", "opaque/hidden 0 0", "low 7 8"))
	importLayer(t, s, store.LayerSpec{ID: "top", Parent: "base"}, ownedTar(t, "etc/ 0 0", "etc/two 5 6", "etc/.wh.gone 0 0", "opaque/ 9 9", "opaque/.wh..wh..opq 0 0", "opaque/new 0 0", "link=etc/two 5 6"))
	get(t, s.CreateImage, context.Background(), store.ImageSpec{ID: "img", Layer: "top", Names: []string{"app"}})
	return s
}

// A container with ID maps sees its image through them; the image has one
// mapped layer for all containers of the same maps, which goes with it; a
// container without maps sees the host's IDs.
func TestMappedContainers(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := mappedStore(t, e)
		maps := someMaps(100000, 200000)
		c1 := get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "c1", Image: "img", Maps: maps})
		c2 := get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "c2", Image: "img", Maps: maps})
		get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "c3", Image: "img"})
		mappedTree := []string{
			"etc 755 100000:200000", "etc/one 4751 100001:200002", "etc/two 4751 100005:200006",
			"link 4751 100005:200006", "low 4751 100007:200008", "opaque 755 100009:200009", "opaque/new 4751 100000:200000",
		}
		for _, id := range []string{"c1", "c2"} {
			mounted(t, s, id, func(dir string) {
				if diff := cmp.Diff(mappedTree, owners(t, dir)); diff != "" {
					t.Errorf("%s: %s", id, diff)
				}
				a, err1 := os.Stat(filepath.Join(dir, "link"))
				b, err2 := os.Stat(filepath.Join(dir, "etc/two"))
				if err1 != nil || err2 != nil || !os.SameFile(a, b) {
					t.Error("a hard link was lost")
				}
				want(t, os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600), nil)
				want(t, os.Chown(filepath.Join(dir, "mine"), 100003, 200003), nil)
			})
		}
		mounted(t, s, "c3", func(dir string) {
			if got := owners(t, dir); !slices.Contains(got, "etc/two 4751 5:6") {
				t.Errorf("without maps: %v", got)
			}
		})
		view(t, s, func(tx *store.Tx) error {
			img := tx.ImageByID("img")
			l1, l2 := tx.LayerByID(c1.Layer), tx.LayerByID(c2.Layer)
			if len(img.MappedLayers) != 1 || l1.Parent != img.MappedLayers[0] || l2.Parent != l1.Parent {
				t.Fatalf("mapped layers %v, parents %s %s", img.MappedLayers, l1.Parent, l2.Parent)
			}
			m, top := tx.LayerByID(l1.Parent), tx.LayerByID("top")
			if m.Parent != "base" || m.DiffDigest != top.DiffDigest || m.CompressedSize != top.CompressedSize || len(m.UIDs) != len(top.UIDs) {
				t.Errorf("the mapped layer is %+v", m)
			}
			if diff := cmp.Diff(maps, m.Maps); diff != "" {
				t.Error(diff)
			}
			return nil
		})
		checkMappedDiffs(t, s, c1)
		if out := e.peer("image", "img"); strings.Count(out, "Top Layer:") != 2 {
			t.Errorf("the peer shows %s", out)
		}
		for _, id := range []string{"c1", "c2", "c3"} {
			want(t, s.DeleteContainer(ctx, id), nil)
		}
		deleted, err := s.DeleteImage(ctx, "img")
		want(t, err, nil)
		if len(deleted) != 3 {
			t.Errorf("deleted %v", deleted)
		}
		want(t, s.Wipe(ctx, nil), nil)
		e.onlyEmpty(t)
	})
}

// checkMappedDiffs looks at a container's diff and at that of the layer below:
// owners are the container's, and mapping alone is no change.
func checkMappedDiffs(t testing.TB, s *store.Store, c *store.Container) {
	t.Helper()
	if got := tarOwners(t, s, c.Layer); !slices.Equal(got, []string{"mine 3:3"}) {
		t.Errorf("diff of the container: %v", got)
	}
	var m *store.Layer
	view(t, s, func(tx *store.Tx) error {
		m = tx.LayerByID(tx.LayerByID(c.Layer).Parent)
		return nil
	})
	if ours, theirs := tarOwners(t, s, m.ID), tarOwners(t, s, "top"); !slices.Equal(ours, theirs) {
		t.Errorf("diff of the mapped layer: %v, of its twin: %v", ours, theirs)
	}
}

func tarOwners(t testing.TB, s *store.Store, id string) []string {
	t.Helper()
	src, err := s.DiffTar(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := src.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	want(t, src.Close(), nil)
	var out []string
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if err != nil {
			return out
		}
		out = append(out, fmt.Sprintf("%s %d:%d", h.Name, h.Uid, h.Gid))
	}
}

// Layers made with maps of their own: content that is applied goes through
// them, what their parents show does too, and a child has its parent's maps
// unless it is given others.
func TestMappedLayers(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := mappedStore(t, e)
		maps := someMaps(300000, 400000)
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "mapped", Parent: "top", Maps: maps})
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "heir", Parent: "mapped"})
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "host", Parent: "mapped", HostIDs: true})
		applyDiff(t, s, "heir", ownedTar(t, "own 11 12"))
		for id, file := range map[string]string{
			"mapped": "etc/two 4751 300005:400006", "heir": "own 4751 300011:400012", "host": "etc/two 4751 5:6",
		} {
			mounted(t, s, id, func(dir string) {
				got := owners(t, dir)
				if !slices.Contains(got, file) || slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, "etc/gone") || strings.HasPrefix(l, "opaque/hidden") }) {
					t.Errorf("%s shows %v, want %s", id, got, file)
				}
			})
		}
		if got := tarOwners(t, s, "heir"); !slices.Equal(got, []string{"own 11:12"}) {
			t.Errorf("diff: %v", got)
		}
		if got := tarOwners(t, s, "mapped"); len(got) != 0 {
			t.Errorf("mapping alone changed %v", got)
		}
		_, err := s.CreateLayer(ctx, store.LayerSpec{Parent: "top", Maps: idmap.Maps{UIDs: []idmap.Range{{Size: 2}}}})
		want(t, err, errno.ErrBadValue)
		_, err = s.CreateContainer(ctx, store.ContainerSpec{Image: "img", Maps: idmap.Maps{UIDs: []idmap.Range{{Size: 0}}}})
		want(t, err, errno.ErrBadValue)
		if left, err := filepath.Glob(filepath.Join(e.root, "plyfs", "*")); err != nil || len(left) > 0 {
			t.Errorf("left: %v %v", left, err)
		}
	})
}

// The peer finds and uses the mapped layer that we made, and we the peer's.
func TestMappedLayersAreShared(t *testing.T) {
	t.Parallel()
	e := newLifeEnv(t, "vfs")
	ctx := context.Background()
	s := mappedStore(t, e)
	get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ours", Image: "img", Maps: someMaps(100000, 200000)})
	e.peer("create-container", "--id", "theirs", "--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536", "img")
	e.peer("create-container", "--id", "theirs2", "--uidmap", "0:500000:65536", "--gidmap", "0:500000:65536", "img")
	get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "ours2", Image: "img", Maps: someMaps(500000, 500000)})
	view(t, s, func(tx *store.Tx) error {
		if n := len(tx.ImageByID("img").MappedLayers); n != 2 {
			t.Errorf("%d mapped layers, want 2", n)
		}
		parent := func(c string) string { return tx.LayerByID(tx.ContainerByID(c).Layer).Parent }
		if parent("ours") != parent("theirs") || parent("ours2") != parent("theirs2") {
			t.Error("mapped layers are not shared")
		}
		return nil
	})
	mine := strings.Join(owners(t, strings.TrimSpace(e.peer("mount", "theirs"))), "\n")
	if !strings.Contains(mine, "etc/two 4751 100005:200006") {
		t.Errorf("the peer's container of our layer shows %s", mine)
	}
}

// Extended attributes and modes that a change of owner takes away are kept.
func TestMappingKeepsCapabilities(t *testing.T) {
	t.Parallel()
	onDrivers(t, func(t *testing.T, e *lifeEnv) {
		ctx := context.Background()
		s := mappedStore(t, e)
		const attr = "security.capability"
		// struct vfs_cap_data, revision 2: CAP_NET_RAW effective and permitted.
		value := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		get(t, s.CreateLayer, ctx, store.LayerSpec{ID: "caps", Parent: "top"})
		mounted(t, s, "caps", func(dir string) {
			if err := unix.Setxattr(filepath.Join(dir, "low"), attr, value, 0); err != nil {
				t.Skip("capabilities of files cannot be set here: ", err)
			}
		})
		get(t, s.CreateImage, ctx, store.ImageSpec{ID: "img2", Layer: "caps"})
		get(t, s.CreateContainer, ctx, store.ContainerSpec{ID: "c", Image: "img2", Maps: someMaps(100000, 200000)})
		mounted(t, s, "c", func(dir string) {
			got := make([]byte, 64)
			n, err := unix.Getxattr(filepath.Join(dir, "low"), attr, got)
			if err != nil || !bytes.Equal(got[:n], value) {
				t.Errorf("%x %v", got[:max(n, 0)], err)
			}
		})
	})
}
