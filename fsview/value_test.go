package fsview_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/vnode"
)

// file drives one open file as the kernel would.
type file struct {
	w    *world
	path string
	node vnode.Node
	h    vnode.Handle
}

func (w *world) open(path string, flags int) *file {
	w.t.Helper()
	f, err := w.openErr(path, flags)
	if err != nil {
		w.t.Fatalf("open %s: %v", path, err)
	}
	return f
}

func (w *world) openErr(path string, flags int) (*file, error) {
	n, err := fsview.Walk(w.ctx, w.fs.Root(), path, true)
	if err != nil {
		return nil, err
	}
	h, err := n.(vnode.Opener).Open(w.ctx, flags)
	return &file{w, path, n, h}, err
}

// create makes a file in a directory, open for writing.
func (w *world) create(dir, name string) *file {
	w.t.Helper()
	n, err := fsview.Walk(w.ctx, w.fs.Root(), dir, true)
	if err != nil {
		w.t.Fatal(err)
	}
	c, h, err := n.(vnode.Creator).Create(w.ctx, name, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		w.t.Fatalf("create %s/%s: %v", dir, name, err)
	}
	return &file{w, dir + "/" + name, c.Node, h}
}

func (f *file) write(text string, off int64) error {
	_, err := f.h.(vnode.Writer).WriteAt(f.w.ctx, []byte(text), off)
	return err
}

func (f *file) flush() error { return f.h.(vnode.Flusher).Flush(f.w.ctx) }

func (f *file) release() error { return f.h.Release(f.w.ctx) }

// setSize is SETATTR without a handle.
func (f *file) setSize(n uint64) error {
	_, err := f.node.(vnode.Setattrer).Setattr(f.w.ctx, vnode.SetAttr{Size: &n})
	return err
}

func (f *file) ok(errs ...error) {
	f.w.t.Helper()
	for i, err := range errs {
		if err != nil {
			f.w.t.Fatalf("%s: step %d: %v", f.path, i, err)
		}
	}
}

const (
	wr   = syscall.O_WRONLY
	trun = syscall.O_WRONLY | syscall.O_TRUNC
	app  = syscall.O_WRONLY | syscall.O_APPEND
)

// names makes a container with the names n (newest first) and returns a
// function that compares them.
func named(t *testing.T, n string) (*world, func(want string)) {
	t.Helper()
	t.Parallel()
	w := newWorld(t, "vfs")
	id := strings.Repeat("ab", 32)
	w.mkdir("containers/" + id)
	if err := w.write("containers/"+id+"/names", n); err != nil {
		t.Fatal(err)
	}
	return w, func(want string) {
		t.Helper()
		if got := w.read("containers/by-id/" + id + "/names"); got != want {
			t.Errorf("names are %q, want %q", got, want)
		}
	}
}

const namesFile = "containers/by-id/abab/names"

// A shell's `echo x > names`, when the server asked for O_TRUNC at OPEN.
func TestShellWriteAtomicTruncate(t *testing.T) {
	w, check := named(t, "old\n")
	f := w.open(namesFile, trun)
	f.ok(f.flush())
	check("old\n")
	f.ok(f.write("new\n", 0))
	check("new\n")
	f.ok(f.flush(), f.release())
	check("new\n")
}

// The same when truncation comes as a SETATTR without handle.
func TestShellWriteSetattr(t *testing.T) {
	w, check := named(t, "old\nolder\n")
	f := w.open(namesFile, wr)
	f.ok(f.setSize(0), f.flush())
	check("old\nolder\n")
	f.ok(f.write("new\n", 0), f.flush(), f.release())
	check("new\n")
}

// `: > names` is committed by the last close.
func TestTruncateOnly(t *testing.T) {
	w, check := named(t, "old\n")
	f := w.open(namesFile, trun)
	f.ok(f.flush(), f.flush())
	check("old\n")
	f.ok(f.release())
	check("")
}

func TestTruncateOnlySetattr(t *testing.T) {
	w, check := named(t, "old\n")
	f := w.open(namesFile, wr)
	f.ok(f.setSize(0), f.flush())
	check("old\n")
	f.ok(f.release())
	check("")
}

// truncate(2), with no descriptor at all.
func TestTruncatePath(t *testing.T) {
	w, check := named(t, "one\ntwo\n")
	f := w.open(namesFile, os.O_RDONLY)
	f.ok(f.setSize(4))
	check("one\n")
	f.ok(f.setSize(0), f.release())
	check("")
}

// ftruncate after a write commits at the next FLUSH.
func TestTruncateHandle(t *testing.T) {
	w, check := named(t, "old\n")
	f := w.open(namesFile, trun)
	f.ok(f.write("one\ntwo\n", 0))
	check("one\ntwo\n")
	f.ok(f.h.(vnode.Truncater).Truncate(w.ctx, 4))
	check("one\ntwo\n")
	f.ok(f.flush())
	check("one\n")
	f.ok(f.release())
}

func TestSubshellWrites(t *testing.T) {
	w, check := named(t, "old\n")
	f := w.open(namesFile, trun)
	f.ok(f.flush(), f.write("a\n", 0), f.flush(), f.write("b\n", 2), f.flush(), f.release())
	check("a\nb\n")
}

// A write without a newline waits for the close.
func TestWriteWithoutNewline(t *testing.T) {
	w, check := named(t, "old\n")
	f := w.open(namesFile, trun)
	f.ok(f.write("new", 0))
	check("old\n")
	f.ok(f.flush())
	check("new\n")
	f.ok(f.release())
}

// A writer that is killed commits what it had sent.
func TestReleaseWithoutFlush(t *testing.T) {
	w, check := named(t, "old\n")
	f := w.open(namesFile, trun)
	f.ok(f.write("new", 0), f.release())
	check("new\n")
}

func TestAppendAdds(t *testing.T) {
	w, check := named(t, "old\nolder\n")
	f := w.open(namesFile, app)
	f.ok(f.write("new\n", 10))
	check("new\nold\nolder\n")
	f.ok(f.write("newer\n", 14), f.flush(), f.release())
	check("newer\nnew\nold\nolder\n")
}

// Two who append do not undo each other.
func TestAppendersTogether(t *testing.T) {
	w, check := named(t, "old\n")
	f, g := w.open(namesFile, app), w.open(namesFile, app)
	f.ok(f.write("f\n", 4))
	g.ok(g.write("g\n", 4), f.flush(), g.flush(), f.release(), g.release())
	check("g\nf\nold\n")
}

func TestBadWriteChangesNothing(t *testing.T) {
	for name, bad := range map[string]string{
		"empty": "\n", "blank": "good\n\n", "spaces": " x\n", "zero": "a\x00b\n", "encoding": "\xff\n",
	} {
		t.Run(name, func(t *testing.T) {
			w, check := named(t, "old\n")
			f := w.open(namesFile, trun)
			w.is(f.write(bad, 0), "EINVAL", "writing")
			f.ok(f.flush(), f.release())
			check("old\n")
			if got := w.read("containers/by-id/abab/error"); !strings.Contains(got, "not a name") {
				t.Errorf("error says %q", got)
			}
			if got := w.read("error_log"); !strings.Contains(got, " EINVAL /containers/old/names: writing: ") {
				t.Errorf("error_log says %q", got)
			}
		})
	}
}

// A bad write in the middle is undone; what follows it counts.
func TestBadWriteThenGood(t *testing.T) {
	w, check := named(t, "old\n")
	f := w.open(namesFile, trun)
	f.ok(f.write("a\n", 0))
	w.is(f.write(" bad\n", 2), "EINVAL", "writing")
	f.ok(f.write("b\n", 2), f.flush(), f.release())
	check("a\nb\n")
}

// An error of a value without newline shows at close.
func TestBadValueAtFlush(t *testing.T) {
	w, check := named(t, "old\n")
	f := w.open(namesFile, trun)
	f.ok(f.write("bad ", 0))
	w.is(f.flush(), "EINVAL", "close")
	f.ok(f.flush(), f.release())
	check("old\n")
}

func TestTextLimit(t *testing.T) {
	w, check := named(t, "old\n")
	f := w.open(namesFile, trun)
	w.is(f.write(strings.Repeat("x", 64<<10)+"\n", 0), "EFBIG", "a byte over the limit")
	f.ok(f.flush(), f.release())
	g := w.open(namesFile, wr)
	w.is(g.write("x", 64<<10), "EFBIG", "past the limit")
	w.is(g.h.(vnode.Truncater).Truncate(w.ctx, 64<<10+1), "EFBIG", "a size past the limit")
	g.ok(g.flush(), g.release())
	check("old\n")
	if got := w.read("containers/old/error"); !strings.Contains(got, "65536 bytes") {
		t.Errorf("error says %q", got)
	}
}

// What a file shows, it accepts.
func TestShownIsAccepted(t *testing.T) {
	w, check := named(t, "new\nold:1\na b/c%d\n")
	got := w.read(namesFile)
	if err := w.write(namesFile, got); err != nil {
		t.Fatal(err)
	}
	check(got)
	if err := w.write("containers/by-id/abab/ctl", w.read("containers/by-id/abab/ctl")); err != nil {
		t.Errorf("ctl does not take what it shows: %v", err)
	}
}

// A value is taken at open and stays for that descriptor.
func TestValueStays(t *testing.T) {
	w, _ := named(t, "old\n")
	f := w.open(namesFile, os.O_RDONLY)
	if err := w.write(namesFile, "new\n"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	n, err := f.h.ReadAt(w.ctx, b, 0)
	f.ok(err, f.release())
	if string(b[:n]) != "old\n" {
		t.Errorf("an open file changed to %q", b[:n])
	}
}

// Raw files are committed when they are closed, not at a newline.
func TestRawCommitsAtFlush(t *testing.T) {
	w, _ := named(t, "x\n")
	md := "containers/x/metadata"
	f := w.open(md, trun)
	f.ok(f.flush(), f.write("{}\n", 0))
	if got := w.read(md); got != "" {
		t.Errorf("a write to a raw file showed as %q before it was closed", got)
	}
	f.ok(f.write("more", 3), f.flush())
	if got := w.peer("metadata", "-q", "x"); got != "{}\nmore" {
		t.Errorf("the peers see %q", got)
	}
	f.ok(f.release())
	g := w.open(md, app)
	g.ok(g.write("!", 7), g.flush(), g.release())
	if got := w.read(md); got != "{}\nmore!" {
		t.Errorf("appending to a raw file gave %q", got)
	}
	w.is(w.write(md, "\xff\xfe"), "EINVAL", "bytes as metadata")
}

func TestReadOnlyFiles(t *testing.T) {
	w, _ := named(t, "x\n")
	for _, p := range []string{"containers/x/id", "containers/x/created", "README", "status", "containers/x/mount"} {
		_, err := w.openErr(p, trun)
		w.is(err, "EROFS", "opening "+p+" for writing")
		f := w.open(p, os.O_RDONLY)
		w.is(f.setSize(0), "EROFS", "truncating "+p)
		f.ok(f.release())
	}
}

func TestAttributesThatCannotChange(t *testing.T) {
	w, _ := named(t, "x\n")
	f := w.open(namesFile, os.O_RDONLY)
	set := f.node.(vnode.Setattrer)
	mode, uid := uint32(0o600), uint32(7)
	_, err := set.Setattr(w.ctx, vnode.SetAttr{Mode: &mode})
	w.is(err, "EPERM", "chmod")
	_, err = set.Setattr(w.ctx, vnode.SetAttr{UID: &uid})
	w.is(err, "EPERM", "chown")
	mode = syscall.S_IFREG | 0o644
	_, err = set.Setattr(w.ctx, vnode.SetAttr{Mode: &mode})
	w.is(err, "OK", "chmod to what it is")
	f.ok(f.release())
}

func TestErrorXattr(t *testing.T) {
	w, _ := named(t, "x\n")
	w.is(w.write(namesFile, "\n"), "EINVAL", "an empty name")
	for _, p := range []string{"/", "containers/x", namesFile} {
		n, err := fsview.Walk(w.ctx, w.fs.Root(), p, true)
		if err != nil {
			t.Fatal(err)
		}
		v, err := n.(vnode.Xattrer).Getxattr(w.ctx, fsview.ErrorXattr)
		if err != nil || !strings.Contains(string(v), "not a name") {
			t.Errorf("%s: %s is %q, %v", p, fsview.ErrorXattr, v, err)
		}
		if l, err := n.(vnode.Xattrer).Listxattr(w.ctx); err != nil || len(l) > 0 {
			t.Errorf("%s lists the attributes %q, %v", p, l, err)
		}
	}
}

func TestReadOnlyMount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("containers/web")
	w.fs = w.newFS(fsview.Options{Store: w.store, Trees: dirTrees{}, ReadOnly: true})
	root := w.fs.Root()
	w.is(fsview.Mkdir(w.ctx, root, "layers/x"), "EROFS", "mkdir")
	w.is(fsview.Rmdir(w.ctx, root, "containers/web"), "EROFS", "rmdir")
	w.is(w.mv("containers/web", "containers/api"), "EROFS", "mv")
	w.is(w.write("containers/web/names", "x\n"), "EROFS", "writing")
	w.is(w.write("containers/web/ctl", "mount\n"), "EROFS", "ctl")
	w.is(w.write("containers/web/bigdata/new", "x"), "EROFS", "a new data item")
	_, err := fsview.Walk(w.ctx, root, "containers/web/merged", true)
	w.is(err, "EROFS", "merged")
	walkAll(w, "/", func(path string, n vnode.Node, a vnode.Attr) {
		if a.Mode&0o222 != 0 && a.Mode&syscall.S_IFMT != syscall.S_IFLNK && !strings.Contains(path, "/tree") && !strings.Contains(path, "/diff") {
			t.Errorf("%s has mode %o on a read-only mount", path, a.Mode)
		}
	})
}

// A signal that arrives while a file is closed does not undo the close.
func TestInterruptedClose(t *testing.T) {
	w, check := named(t, "old\n")
	f := w.open(namesFile, trun)
	f.ok(f.write("new", 0))
	ctx, cancel := context.WithCancel(w.ctx)
	cancel()
	f.ok(f.h.(vnode.Flusher).Flush(ctx))
	check("new\n")
	f.ok(f.write("newer", 0), f.h.Release(ctx))
	check("newer\n")
}

// ACLs and labels are not supported, so that ls asks for them once (ADR 0035).
func TestForeignXattrs(t *testing.T) {
	w, _ := named(t, "x\n")
	for _, p := range []string{"/", "containers/x", namesFile, "containers/x/layer"} {
		n, err := fsview.Walk(w.ctx, w.fs.Root(), p, false)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{
			"system.posix_acl_access": "ENOTSUP", "security.selinux": "ENOTSUP", "user.x": "ENODATA", fsview.ErrorXattr: "ENODATA",
		} {
			_, err := n.(vnode.Xattrer).Getxattr(w.ctx, name)
			w.is(err, want, p+" "+name)
		}
	}
}

// Whoever syncs a file has what it is now, also when it was only truncated.
func TestFsyncCommitsTruncation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("containers/x")
	w.is(w.write("containers/x/metadata", "much"), "OK", "metadata")
	f := w.open("containers/x/metadata", os.O_RDWR)
	f.ok(f.h.(vnode.Truncater).Truncate(w.ctx, 2), f.h.(vnode.Fsyncer).Fsync(w.ctx, false))
	w.same(w.read("containers/x/metadata"), "mu", "after fsync")
	f.ok(f.flush(), f.release())
	f = w.open("containers/x/metadata", os.O_WRONLY|os.O_TRUNC)
	w.same(w.read("containers/x/metadata"), "mu", "before fsync")
	f.ok(f.h.(vnode.Fsyncer).Fsync(w.ctx, false))
	w.same(w.read("containers/x/metadata"), "", "truncated and synced")
	f.ok(f.flush(), f.release())
}

// Verbs that run when ctl is closed, and an import, end with whoever closes:
// nothing is done then, and the same can be asked again.
func TestInterruptedWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	gone, cancel := context.WithCancel(w.ctx)
	cancel()
	f := w.open("ctl", os.O_WRONLY|os.O_TRUNC)
	f.ok(f.write("check full", 0))
	w.is(f.h.(vnode.Flusher).Flush(gone), "EINTR", "check, interrupted")
	w.same(strings.Contains(w.read("progress"), "check-full interrupted"), true, w.read("progress"))
	f.ok(f.release())

	w.mkdir("layers/base")
	w.is(w.write("layers/base/diff.tar", string(tarOf(t, "f=x"))), "OK", "content")
	w.mkdir("layers/base/images/app")
	archive := w.read("images/app/oci.tar")
	v := newWorld(t, "vfs")
	in := v.create("images/import", "app.tar")
	in.ok(in.write(archive, 0))
	v.is(in.h.(vnode.Flusher).Flush(gone), "EINTR", "import, interrupted")
	v.same(len(v.ls("images/by-id")), 0, "images after an interrupted import")
	in.ok(in.flush())
	v.same(v.ls("images/by-id"), w.ls("images/by-id"), "images")
	in.ok(in.release())
}

// An archive under a temporary name, as rsync and install write it: opened for
// reading and writing, closed, given times and mode, and renamed. The name
// stays until then; there are never many of them.
func TestTemporaryNamesOfImports(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/base")
	w.is(w.write("layers/base/diff.tar", string(tarOf(t, "f=x"))), "OK", "content")
	w.mkdir("layers/base/images/app")
	archive := w.read("images/app/oci.tar")
	v := newWorld(t, "vfs")
	there := func(name string) bool {
		_, err := fsview.Walk(v.ctx, v.fs.Root(), "images/import/"+name, false)
		return err == nil
	}
	take := func(name string, release bool) *file {
		in := v.create("images/import", name)
		in.ok(in.write(archive, 0))
		again := make([]byte, len(archive)+1)
		n, err := in.h.ReadAt(v.ctx, again, 0)
		in.ok(err)
		v.same(string(again[:n]), archive, "what was written, read again")
		v.is(v.mv("images/import/"+name, "images/import/app.tar"), "EBUSY", "renamed before it is closed")
		v.is(fsview.Unlink(v.ctx, v.fs.Root(), "images/import/"+name), "EBUSY", "removed before it is closed")
		in.ok(in.flush())
		if release {
			in.ok(in.release())
		}
		return in
	}
	mode, owner := uint32(0o600), uint32(1234)
	for _, release := range []bool{true, false} { // the kernel sends RELEASE when it likes
		in := take(".app.tar.x1", release)
		_, err := in.node.(vnode.Setattrer).Setattr(v.ctx, vnode.SetAttr{Mode: &mode, UID: &owner})
		in.ok(err, v.mv("images/import/.app.tar.x1", "images/import/app.tar"))
		v.same([]bool{there(".app.tar.x1"), there("app.tar")}, []bool{false, false}, "names after the rename")
		v.is(v.mv("images/import/.app.tar.x1", "images/import/app.tar"), "ENOENT", "renamed again")
		if !release {
			in.ok(in.release())
		}
	}
	v.same(v.ls("images/by-id"), w.ls("images/by-id"), "images")
	take("plain", true)
	v.same(there("plain"), false, "a name without a dot stays")
	take(".gone", true)
	in := v.create("images/import", ".broken")
	in.ok(in.write(archive[:len(archive)/2], 0))
	v.is(in.flush(), "EBADMSG", "half an archive")
	in.ok(in.release())
	v.same(there(".broken"), false, "the name of a broken archive stays")
	v.is(fsview.Unlink(v.ctx, v.fs.Root(), "images/import/.gone"), "OK", "removed")
	v.same(there(".gone"), false, "a removed name")
	const most, all = 64, 70
	for i := range all {
		take(fmt.Sprintf(".%d", i), true)
	}
	for i := range all {
		v.same(there(fmt.Sprintf(".%d", i)), i >= all-most, fmt.Sprint("name ", i))
	}
}
