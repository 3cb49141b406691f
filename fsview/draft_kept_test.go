package fsview_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/fsview"
)

// command makes a tree as a command without a mount has it, in place of the
// one before.
func (w *world) command() {
	w.t.Helper()
	if err := w.fs.Close(w.ctx); err != nil {
		w.t.Fatal(err)
	}
	w.fs = w.newFS(fsview.Options{Store: w.store, Trees: dirTrees{}, KeepDrafts: true})
}

// TestKeptDrafts: without a mount a draft lasts from command to command, until
// it is committed, removed, or a day old; mounts do not see it.
func TestKeptDrafts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	mounted := w.newFS(fsview.Options{Store: w.store, Trees: dirTrees{}})
	w.command()
	w.mkdir("drafts/a")
	w.command()
	w.same(w.ls("drafts"), []string{"a"}, "the draft in the next command")
	if err := w.write("drafts/a/names", "first\n"); err != nil {
		t.Fatal(err)
	}
	w.command()
	tar := tarOf(t, "f=content")
	if err := w.write("drafts/a/diff.tar", string(tar)); err != nil {
		t.Fatal(err)
	}
	w.command()
	w.is(w.write("drafts/a/diff.tar", string(tar[:700])), "EBADMSG", "a diff.tar that is cut off")
	w.command()
	w.same(w.read("drafts/a/names"), "first\n", "names")
	w.is(w.mv("drafts/a", "layers/l"), "EINVAL", "committing what was written last and failed")
	w.command()
	if err := w.write("drafts/a/diff.tar", string(tar)); err != nil {
		t.Fatal(err)
	}
	w.command()
	if l, err := fsview.List(w.ctx, mounted.Root(), "drafts"); err != nil || len(l) > 0 {
		t.Errorf("a mount sees %v (%v)", l, err)
	}
	w.is(w.mv("drafts/a", "layers/l"), "OK", "commit")
	w.same(w.read("layers/l/names"), "first\nl\n", "names")
	w.same(w.read("layers/l/diff.tar") == string(tar), true, "diff.tar")
	w.command()
	w.same(w.ls("drafts"), []string{}, "after the commit")
	w.nothingKept()

	// Data items, and removal.
	w.mkdir("drafts/c")
	if err := fsview.WriteFile(w.ctx, w.fs.Root(), "drafts/c/bigdata/k", strings.NewReader("v\x00"), false); err != nil {
		t.Fatal(err)
	}
	w.command()
	w.same(w.read("drafts/c/bigdata/k"), "v\x00", "an item")
	w.mkdir("drafts/old")
	w.command()
	w.rmdir("drafts/c")
	w.command()
	w.same(w.ls("drafts"), []string{"old"}, "after rmdir")

	// A day later.
	files, err := filepath.Glob(w.root + "/plyfs/drafts/*/draft.json")
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	i := slices.Index(strings.Split(string(text), `"`), "born")
	born := strings.Split(string(text), `"`)[i+2]
	old := strings.Replace(string(text), born, time.Now().Add(-25*time.Hour).UTC().Format(time.RFC3339Nano), 1)
	if err := os.WriteFile(files[0], []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	w.command()
	w.same(w.ls("drafts"), []string{}, "a day later")
	w.nothingKept()
}

func (w *world) nothingKept() {
	w.t.Helper()
	if left, err := filepath.Glob(w.root + "/plyfs/*"); err != nil || len(left) > 0 {
		w.t.Errorf("kept: %q (%v)", left, err)
	}
}
