package layertar_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
)

// defaultACL is `setfacl -d -m u:1000:rwx` as the kernel stores it.
func defaultACL(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("setfacl"); err != nil {
		t.Skip("setfacl is not installed: it makes the ACL")
	}
	dir := t.TempDir()
	run(t, nil, "setfacl", "-d", "-m", "u:1000:rwx", dir)
	buf := make([]byte, 1000)
	n, err := unix.Getxattr(dir, "system.posix_acl_default", buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// What an archive puts into a directory has the archive's attributes, also
// when the directory has a default ACL, now or from an earlier stream.
func TestNothingInheritsACLs(t *testing.T) {
	t.Parallel()
	acl := defaultACL(t)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: '5', Name: "d/", Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.system.posix_acl_default": acl}}),
		w.WriteHeader(&tar.Header{Typeflag: '0', Name: "d/f", Mode: 0o664}), w.WriteHeader(&tar.Header{Typeflag: '5', Name: "d/sub/", Mode: 0o755}),
		w.WriteHeader(&tar.Header{Typeflag: '6', Name: "d/p", Mode: 0o620}), w.Close())
	if err != nil {
		t.Fatal(err)
	}
	dir, split, _, err := importTar(t, b.Bytes(), layertar.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	second := makeTar(t, member{typ: '0', name: "d/g", data: "1"}, member{typ: '0', name: "d/new/h", data: "1"})
	if _, err := importInto(t, dir, split, bytes.NewReader(second), layertar.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, l := range treeOf(t, dir) {
		name := strings.Fields(l)[0]
		if has := strings.Contains(l, "posix_acl"); has != (name == `"d"`) {
			t.Error(l)
		}
		if name == `"d/f"` && !strings.Contains(l, " 100664 ") {
			t.Error(l)
		}
	}
}

// A layer is the same whatever its pieces' sizes are and however they fall on
// blocks, batches and writers, and comes back byte for byte.
func TestContentInPieces(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		sizes := rapid.SliceOfN(rapid.SampledFrom([]int{0, 0, 1, 511, 512, 4000, 100_000, 256 << 10, 700_001}), 1, 60).Draw(rt, "sizes")
		var ms []member
		want := map[string]string{}
		for i, n := range sizes {
			m := member{typ: '0', name: "f" + string(rune('a'+i%26)) + string(rune('a'+i/26)), data: strings.Repeat(string(rune('A'+i%26)), n)}
			if i%7 == 3 { // a link to a file whose content is on its way, and its removal
				ms = append(ms, member{typ: '1', name: "l" + m.name, link: ms[len(ms)-1].name})
				want["l"+m.name] = want[ms[len(ms)-2].name]
			}
			ms, want[m.name] = append(ms, m), m.data
		}
		stream := makeTar(t, ms...)
		dir, split, _, err := importTar(t, stream, layertar.ApplyOptions{})
		if err != nil {
			rt.Fatal(err)
		}
		got := map[string]string{}
		es, err := os.ReadDir(dir)
		if err != nil {
			rt.Fatal(err)
		}
		for _, e := range es {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				rt.Fatal(err)
			}
			got[e.Name()] = string(b)
		}
		if !cmp.Equal(want, got) {
			rt.Fatal("another content")
		}
		_, r := openSplit(t, dir, split)
		var out bytes.Buffer
		if _, err := r.WriteTo(&out); err != nil || !bytes.Equal(out.Bytes(), stream) {
			rt.Fatalf("export: %v", err)
		}
		if err := os.RemoveAll(filepath.Dir(dir)); err != nil {
			rt.Fatal(err)
		}
	})
}

// A file that cannot be written ends the import with its name, and every
// descriptor is given back.
func TestWriteFails(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("no tmpfs can be mounted: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil { // EBUSY if a descriptor were open
			t.Error(err)
		}
	}()
	var ms []member
	for i := range 40 {
		ms = append(ms, member{typ: '0', name: "f" + string(rune('a'+i)), data: strings.Repeat("x", 100_000)})
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = layertar.Import(t.Context(), d, bytes.NewReader(makeTar(t, ms...)), io.Discard, layertar.ApplyOptions{})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), `member "f`) || !strings.Contains(err.Error(), "at byte") {
		t.Errorf("import into a full filesystem: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// A stream that breaks inside a file, with others on their way, leaves no
// descriptor open.
func TestBreakGivesBack(t *testing.T) {
	t.Parallel()
	stream := makeTar(t, member{typ: '0', name: "a", data: strings.Repeat("x", 3<<20)}, member{typ: '0', name: "b", data: strings.Repeat("x", 3<<20)})
	dir, _, _, err := importTar(t, stream[:4<<20], layertar.ApplyOptions{})
	if !errors.Is(err, errno.ErrBadStream) {
		t.Fatal(err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(fds, func(e os.DirEntry) bool {
		to, _ := os.Readlink("/proc/self/fd/" + e.Name())
		return strings.HasPrefix(to, dir)
	}) {
		t.Error("a descriptor below the layer is open")
	}
}

// With each file synced the layer is the same, also with closed directories.
func TestSyncFiles(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{{Typeflag: '5', Name: "d/", Mode: 0o000}, {Typeflag: '0', Name: "d/f", Mode: 0o600}, {Typeflag: '0', Name: "i/m/f", Mode: 0o400}, {Typeflag: '2', Name: "l", Linkname: "d"}} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var trees [][]string
	for _, sync := range []bool{false, true} {
		dir, _, _, err := importTar(t, b.Bytes(), layertar.ApplyOptions{SyncFiles: sync})
		if err != nil {
			t.Fatal(err)
		}
		trees = append(trees, treeOf(t, dir))
	}
	if d := cmp.Diff(trees[0], trees[1]); d != "" {
		t.Error(d)
	}
}
