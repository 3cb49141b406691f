package interop

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A large file through tree/, which the kernel may read by itself, is the file: cold
// and warm, after a change of a layer that can be written, through several openings,
// and for who has it open while the peer removes the layer. Its access time stays.
func TestLargeFileThroughTree(t *testing.T) {
	t.Parallel()
	e := newEnv(t, "overlay")
	e.cs("create-layer", "-n", "base")
	mnt := e.mount("-o", "lock_timeout=60s")
	e.mustSh(mnt, "mkdir $M/layers/big")
	direct := filepath.Join(e.root, "overlay", e.line(mnt, "layers/big/id"), "diff/file")
	through := filepath.Join(mnt, "layers/big/tree/file")
	data := make([]byte, 6<<20)
	fill := func() {
		_, _ = rand.Read(data) // it never fails
		e.must(os.WriteFile(direct, data, 0o644))
	}
	same := func(when string) {
		e.Helper()
		got, err := os.ReadFile(through)
		e.must(err)
		if string(got) != string(data) {
			e.Errorf("%s: the content through tree/ is another", when)
		}
	}
	fill()
	same("at first")
	same("warm")
	f, err := os.Open(direct)
	e.must(err)
	e.must(f.Sync())
	e.must(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	e.must(f.Close())
	same("cold")
	held, err := os.Open(through)
	e.must(err)
	fill()
	same("changed in its place, while it is open")
	e.must(os.Remove(direct))
	fill()
	same("another file of the same name")
	var before, after unix.Stat_t
	e.must(os.Chtimes(direct, time.Unix(1_000_000, 0), time.Unix(2_000_000, 0)))
	e.must(unix.Stat(direct, &before))
	same("with old times")
	e.must(unix.Stat(direct, &after))
	if before.Atim != after.Atim {
		e.Errorf("reading through tree/ changed the access time from %v to %v", before.Atim, after.Atim)
	}
	e.must(held.Close())
	held, err = os.Open(through)
	e.must(err)
	e.cs("delete-layer", "big")
	got := make([]byte, len(data))
	if _, err := held.ReadAt(got, 0); err != nil || string(got) != string(data) {
		e.Errorf("who has the file of a removed layer open reads something else: %v", err)
	}
	e.must(held.Close())
	if _, err := os.Stat(through); !os.IsNotExist(err) {
		e.Errorf("the file of a removed layer: %v", err)
	}
}
