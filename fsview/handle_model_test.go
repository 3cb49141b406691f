package fsview_test

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/vnode"
)

// TestRawLikeAFile: whatever is done to a data item through a descriptor, it
// then holds what an ordinary file would hold.
func TestRawLikeAFile(t *testing.T) {
	w := newWorldIn(t, memoryDir(t), "vfs")
	w.mkdir("containers/c")
	const item = "containers/c/bigdata/k"
	plain := filepath.Join(memoryDir(t), "plain")
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "start")
		if err := w.write(item, string(start)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(plain, start, 0o600); err != nil {
			t.Fatal(err)
		}
		flags := rapid.SampledFrom([]int{syscall.O_WRONLY, syscall.O_RDWR, syscall.O_WRONLY | syscall.O_TRUNC, syscall.O_WRONLY | syscall.O_APPEND}).Draw(t, "flags")
		real, err := os.OpenFile(plain, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := w.openErr(item, flags)
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(0, 8).Draw(t, "steps") {
			step(t, w, ours, real, flags)
		}
		if err := ours.release(); err != nil {
			t.Fatal(err)
		}
		if err := real.Close(); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(plain)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := w.readErr(item); err != nil || !bytes.Equal([]byte(got), want) {
			t.Fatalf("the item holds %q (%v), a file %q", got, err, want)
		}
	})
}

// step does one thing to both files.
func step(t *rapid.T, w *world, ours *file, real *os.File, flags int) {
	switch rapid.SampledFrom([]string{"write", "write", "truncate", "flush", "stat"}).Draw(t, "step") {
	case "write":
		p := rapid.SliceOfN(rapid.SampledFrom([]byte("ab\n")), 1, 10).Draw(t, "data")
		off := rapid.Int64Range(0, 30).Draw(t, "offset")
		var err error
		if flags&syscall.O_APPEND != 0 {
			_, err = real.Write(p)
		} else {
			_, err = real.WriteAt(p, off)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := ours.write(string(p), off); err != nil {
			t.Fatal(err)
		}
	case "truncate":
		n := rapid.Int64Range(0, 30).Draw(t, "size")
		if err := real.Truncate(n); err != nil {
			t.Fatal(err)
		}
		if err := ours.h.(vnode.Truncater).Truncate(w.ctx, uint64(n)); err != nil {
			t.Fatal(err)
		}
	case "flush":
		if err := ours.flush(); err != nil {
			t.Fatal(err)
		}
	case "stat":
		st, err := real.Stat()
		if err != nil {
			t.Fatal(err)
		}
		a, err := ours.h.(vnode.HandleAttr).Attr(w.ctx)
		if err != nil || a.Size != uint64(st.Size()) {
			t.Fatalf("fstat shows %d bytes (%v), a file %d", a.Size, err, st.Size())
		}
	}
}
