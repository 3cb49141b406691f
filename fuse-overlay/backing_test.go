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
// does for each program, leaves its access time as it was. Small files are not
// worth it.
func TestBackingLeavesAccessTimes(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root has mounts")
	}
	dir := t.TempDir()
	data := bytes.Repeat([]byte("0123456789abcdef"), passFrom/16)
	long := time.Unix(1_000_000, 0)
	for name, content := range map[string][]byte{"large": data, "small": data[1:], "control": data} {
		check(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
		check(t, os.Chtimes(filepath.Join(dir, name), long, time.Unix(2_000_000, 0)))
	}
	atime := func(name string) int64 {
		var st unix.Stat_t
		check(t, unix.Stat(filepath.Join(dir, name), &st))
		return st.Atim.Sec
	}
	for _, volatile := range []bool{false, true} {
		root := opened(t, Config{Layers: []Layer{{Name: "l", Dir: dir, Volatile: volatile}}}).Root()
		open := func(name string) vnode.Handle {
			h, err := get(t, root, name).Node.(vnode.Opener).Open(context.Background(), unix.O_RDONLY)
			check(t, err)
			t.Cleanup(func() { check(t, h.Release(context.Background())) })
			return h
		}
		f, err := open("small").(vnode.Backed).Backing()
		if f != nil || err != nil {
			t.Errorf("a small file is offered: %v, %v", f, err)
		}
		if f, err = open("large").(vnode.Backed).Backing(); err != nil {
			t.Skipf("no mount can be had here: %v", err)
		}
		again, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		check(t, err)
		got, err := io.ReadAll(again)
		check(t, err)
		check(t, again.Close())
		check(t, f.Close())
		if !bytes.Equal(got, data) {
			t.Error("another content")
		}
		if got := atime("large"); got != long.Unix() {
			t.Errorf("volatile %v: the access time became %d", volatile, got)
		}
	}
	_, err := os.ReadFile(filepath.Join(dir, "control"))
	check(t, err)
	if atime("control") == long.Unix() {
		t.Log("this filesystem is mounted without access times: nothing was proved of them")
	}
}
