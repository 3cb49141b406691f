package fuseoverlay

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/vnode"
)

// What is offered to the kernel is the file, and who opens it anew, as the kernel
// does for each program, leaves its access time as it was, though the layer is on a
// filesystem that keeps access times. Small files are not worth it.
func TestBackingLeavesAccessTimes(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	check(t, unix.Mount("strict", dir, "tmpfs", unix.MS_STRICTATIME, "size=64m"))
	t.Cleanup(func() { check(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	data := bytes.Repeat([]byte("0123456789abcdef"), passFrom/16)
	long := time.Unix(1_000_000, 0)
	for name, content := range map[string][]byte{"large": data, "small": data[1:]} {
		check(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
		check(t, os.Chtimes(filepath.Join(dir, name), long, time.Unix(2_000_000, 0)))
	}
	atime := func() int64 {
		var st unix.Stat_t
		check(t, unix.Stat(filepath.Join(dir, "large"), &st))
		return st.Atim.Sec
	}
	for _, volatile := range []bool{false, true} {
		root := opened(t, Config{Layers: []Layer{{Name: "l", Dir: dir, Volatile: volatile}}}).Root()
		open := func(name string) vnode.Backed {
			h, err := get(t, root, name).Node.(vnode.Opener).Open(context.Background(), unix.O_RDONLY)
			check(t, err)
			t.Cleanup(func() { check(t, h.Release(context.Background())) })
			return h.(vnode.Backed)
		}
		f, err := open("small").Backing()
		if f != nil || err != nil {
			t.Errorf("a small file is offered: %v, %v", f, err)
		}
		f, err = open("large").Backing()
		check(t, err)
		again, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		check(t, err)
		check(t, f.Close()) // the mount is in no namespace and nobody's but again's
		got, err := io.ReadAll(again)
		check(t, err)
		check(t, again.Close())
		if !bytes.Equal(got, data) {
			t.Error("another content")
		}
		if got := atime(); got != long.Unix() {
			t.Errorf("volatile %v: the access time became %d", volatile, got)
		}
	}
	_, err := os.ReadFile(filepath.Join(dir, "large"))
	check(t, err)
	if atime() == long.Unix() {
		t.Error("reading the file by its name leaves the access time: nothing was proved")
	}
}
