package fuseoverlay

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestOutdatedDescriptor: a reader that opened the data below a metadata-only
// copy, and comes to keep the descriptor only after the copy got its data, does
// not make later readers see what was below.
func TestOutdatedDescriptor(t *testing.T) {
	t.Parallel()
	r := newRig(t, "echo old > f")
	r.config.Metacopy = true
	o, err := newOverlay(r.config)
	check(t, err)
	defer func() { check(t, o.close()) }()
	n, _, err := o.lookup(t.Context(), o.root, "f")
	check(t, err)
	defer o.forget(n, 1)
	check(t, o.copyUp(t.Context(), n, metaOnly))
	if !n.lacksData() {
		t.Fatal("the copy has its data")
	}
	fd, _, err := o.openUpper(n, false) // the reader, as far as its open
	check(t, err)
	late := &backing{fd: fd, upper: true, data: true, refs: 1}

	check(t, o.copyUp(t.Context(), n, allData)) // the writer
	w, err := o.open(n, true)
	check(t, err)
	_, err = unix.Pwrite(w.fd, []byte("new"), 0)
	check(t, err)
	o.fds.leave(w)

	o.fds.put(n, late)
	o.fds.leave(late)
	b, err := o.open(n, false)
	check(t, err)
	defer o.fds.leave(b)
	got := make([]byte, 3)
	if _, err := unix.Pread(b.fd, got, 0); err != nil || string(got) != "new" {
		t.Errorf("read %q, %v", got, err)
	}
}
