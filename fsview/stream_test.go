package fsview_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/vnode"
)

// pour writes data in pieces of n bytes.
func (f *file) pour(data []byte, n int) {
	f.w.t.Helper()
	for off := 0; off < len(data); off += n {
		f.ok(f.write(string(data[off:min(off+n, len(data))]), int64(off)))
	}
}

// nothingStaged fails the test when the store's extract area does not become
// empty: what was interrupted is removed in the background.
func (w *world) nothingStaged() {
	w.t.Helper()
	var left []string
	for range 200 {
		var err error
		if left, err = filepath.Glob(filepath.Join(w.root, "plyfs", "*", "*")); err != nil {
			w.t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.t.Errorf("left in the extract area: %q", left)
}

// TestDiffTarRoundTrip: what was streamed in comes out, byte for byte, here
// and from the peers, at any offset.
func TestDiffTarRoundTrip(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"vfs", "overlay"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, driver)
			data := tarOf(t, "./", "./a=hello", "./b/", "./b/c="+strings.Repeat("x", 100000), "./l->a")
			w.mkdir("layers/new")
			f := w.open("layers/new/diff.tar", trun)
			f.ok(f.flush()) // tar's own duplicate
			f.pour(data, 10240)
			f.ok(f.flush(), f.flush(), f.release())
			w.same(w.read("layers/new/diff.tar") == string(data), true, "diff.tar is what was written")
			w.same(w.peer("diff", "-u", "-f", filepath.Join(t.TempDir(), "x"), "new"), "", "the peers export it")
			w.same(strings.TrimSpace(w.read("layers/new/digest/uncompressed")), digest.FromBytes(data).String(), "digest")
			out := filepath.Join(t.TempDir(), "theirs.tar")
			w.peer("diff", "-u", "-f", out, "new")
			theirs, err := os.ReadFile(out)
			if err != nil || !bytes.Equal(theirs, data) {
				t.Errorf("the peers export %d bytes, %v, want %d", len(theirs), err, len(data))
			}
			g := w.open("layers/new/diff.tar", os.O_RDONLY)
			part := make([]byte, 1000)
			n, err := g.h.ReadAt(w.ctx, part, 5000)
			g.ok(err, g.release())
			w.same(string(part[:n]) == string(data[5000:6000]), true, "a piece in the middle")
			n2, err := fsview.Walk(w.ctx, w.fs.Root(), "layers/new/diff.tar", true)
			if err != nil {
				t.Fatal(err)
			}
			a, err := n2.Attr(w.ctx)
			if err != nil || a.Size != uint64(len(data)) {
				t.Errorf("st_size is %d, %v, want %d", a.Size, err, len(data))
			}
			w.same(w.read("layers/new/size/uncompressed") != "", true, "size")
			w.same(w.read("layers/new/changes") != "", true, "changes")
			w.nothingStaged()
		})
	}
}

func TestDiffTarCompressed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	data := tarOf(t, "f=hello")
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	w.mkdir("layers/new")
	if err := w.write("layers/new/diff.tar", b.String()); err != nil {
		t.Fatal(err)
	}
	w.same(w.read("layers/new/diff.tar") == string(data), true, "the archive inside")
	w.same(strings.TrimSpace(w.read("layers/new/digest/compressed")), digest.FromBytes(b.Bytes()).String(), "compressed digest")
}

// TestDiffTarAdds: a second archive is added to the first.
func TestDiffTarAdds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "overlay")
	w.mkdir("layers/new")
	w.is(w.write("layers/new/diff.tar", string(tarOf(t, "a=1"))), "OK", "the first")
	w.is(w.add("layers/new/diff.tar", string(tarOf(t, "b=2"))), "OK", "the second, appended")
	w.is(w.write("layers/new/diff.tar", string(tarOf(t, "c=3"))), "OK", "the third")
	w.same(w.ls("layers/new/diff"), []string{"a", "b", "c"}, "diff/")
	w.same(w.read("layers/new/changes"), "Add \"/a\"\nAdd \"/b\"\nAdd \"/c\"\n", "changes")
	w.nothingStaged()
}

// TestDiffTarBroken: whatever is wrong, the layer stays as it was and the
// reason is in error.
func TestDiffTarBroken(t *testing.T) {
	t.Parallel()
	whole := tarOf(t, "a=hello", "b="+strings.Repeat("x", 5000))
	for name, c := range map[string]struct{ data, want, text string }{
		"inside a header": {string(whole[:700]), "EBADMSG", "unexpected EOF"},
		"inside a member": {string(whole[:3000]), "EBADMSG", "unexpected EOF"},
		"junk":            {strings.Repeat("junk", 1000), "EBADMSG", "invalid tar header"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "vfs")
			w.mkdir("layers/new")
			before := w.peer("layer", "-j", "new")
			err := w.write("layers/new/diff.tar", c.data)
			w.is(err, c.want, "writing")
			if got := w.read("layers/new/error"); !strings.Contains(got, c.text) {
				t.Errorf("error says %q, want something of %q", got, c.text)
			}
			w.same(w.peer("layer", "-j", "new"), before, "the record")
			w.same(w.ls("layers/new/tree"), []string{}, "tree/")
			w.nothingStaged()
		})
	}
}

// A FLUSH inside a member fails but leaves the stream open: it may have been a
// duplicate's.
func TestDiffTarDuplicateClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/new")
	data := tarOf(t, "a="+strings.Repeat("x", 5000))
	f := w.open("layers/new/diff.tar", trun)
	f.ok(f.write(string(data[:1000]), 0))
	w.is(f.flush(), "EBADMSG", "a close inside a member")
	f.ok(f.write(string(data[1000:]), 1000), f.flush())
	w.is(f.write("more", int64(len(data))), "EBADMSG", "a write after the commit")
	f.ok(f.release())
	w.same(w.read("layers/new/tree/a"), strings.Repeat("x", 5000), "the file")
}

func TestDiffTarHolesAndSeeks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/new")
	data := tarOf(t, "a=hello")
	end := bytes.LastIndexFunc(data, func(r rune) bool { return r != 0 }) + 1
	f := w.open("layers/new/diff.tar", trun)
	f.ok(f.write(string(data[:end]), 0))
	w.is(f.write("x", 5), "ESPIPE", "a write backwards")
	// cp leaves the zeros at the end out and sets the size.
	f.ok(f.h.(vnode.Truncater).Truncate(w.ctx, uint64(len(data))), f.flush(), f.release())
	w.same(w.read("layers/new/diff.tar") == string(data), true, "the archive with its zeros")
}

func TestDiffTarBusy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/base")
	w.mkdir("layers/base/children/top")
	w.mkdir("layers/top/images/app")
	w.mkdir("containers/web")
	for _, p := range []string{"layers/base", "layers/top"} {
		_, err := w.openErr(p+"/diff.tar", trun)
		w.is(err, "EBUSY", "opening "+p+"/diff.tar")
	}
	if err := w.write("containers/web/ctl", "mount\n"); err != nil {
		t.Fatal(err)
	}
	_, err := w.openErr("containers/web/diff.tar", trun)
	w.is(err, "EBUSY", "opening the diff.tar of a mounted container")
	w.is(w.write("containers/web/ctl", "umount\n"), "OK", "umount")
	_, err = w.openErr("containers/web/diff.tar", os.O_RDWR)
	w.is(err, "EINVAL", "opening to read and write")
}

// Opening and closing without a byte changes nothing; a reader of a generated
// stream may leave early.
func TestDiffTarIdle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/new")
	before := w.peer("layer", "-j", "new")
	f := w.open("layers/new/diff.tar", trun)
	f.ok(f.setSize(0), f.flush(), f.release())
	f = w.open("layers/new/diff.tar", trun)
	f.ok(f.write(string(tarOf(t, "a=x")[:512]), 0), f.release())
	w.same(w.peer("layer", "-j", "new"), before, "the record")
	w.nothingStaged()

	g := w.open("layers/new/diff.tar", os.O_RDONLY)
	if g.h.Flags()&vnode.NonSeekable == 0 {
		t.Error("a generated stream claims that it can seek")
	}
	_, err := g.h.ReadAt(w.ctx, make([]byte, 10), 100)
	w.is(err, "ESPIPE", "reading a generated stream in the middle")
	_, err = g.h.ReadAt(w.ctx, make([]byte, 10), 0)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	g.ok(g.release())
	if got := w.ls("layers/new"); strings.Contains(strings.Join(got, " "), "diff.tar") {
		t.Errorf("a stream of unknown size is listed: %q", got)
	}
}
