package fuseoverlay

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusewire"
)

var _ fusewire.Foresight = (*raw)(nil)

// TestBrief: what a thread may do that hardly gets a processor is what looks
// through no directory.
func TestBrief(t *testing.T) {
	t.Parallel()
	r := newRig(t, "mkdir low listed; echo >low/f; echo >listed/f; echo >f").start()
	r.do("stat f low listed; mkdir new; ls listed; rm listed/f; echo >new/f")
	o := r.server.o
	w := newRaw(o)
	node := func(name string) uint64 { return o.ifKnown(rootID, name).id }
	rmdir := func(name string, want bool) {
		t.Helper()
		if w.BriefRmdir(rootID, name) != want {
			t.Errorf("rmdir %s is brief: %v", name, !want)
		}
	}
	rename := func(name string, flags uint32, want bool) {
		t.Helper()
		if w.BriefRename(rootID, name, flags) != want {
			t.Errorf("rename of %s is brief: %v", name, !want)
		}
	}
	rmdir("new", true)
	rmdir("listed", true)
	rmdir("low", false) // it is to be listed
	rmdir("f", false)
	rmdir("unknown", false)
	rename("f", 0, true)
	rename("f", unix.RENAME_NOREPLACE, true)
	rename("f", unix.RENAME_EXCHANGE, false) // perhaps with a directory
	rename("new", 0, false)
	rename("unknown", 0, false)
	for _, dir := range []uint64{1 << 40, node("f")} {
		if w.BriefRmdir(dir, "x") || w.BriefRename(dir, "x", 0) {
			t.Errorf("in %d, which is no directory, something is brief", dir)
		}
	}
	// Where nobody else empties it, it may last.
	o.trash.end()
	rmdir("listed", false)
	rmdir("new", true)
}
