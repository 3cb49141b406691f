package fusewire

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// Whatever part of a file is asked for, at its end and behind it too, the answer has
// a header of the right length and what the file has, and the pipes are empty after it.
func TestAnswers(t *testing.T) {
	t.Parallel()
	const most = 3 << 20
	data := make([]byte, most)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPipes(pipeRoom)
	if err != nil {
		t.Skipf("no pipes here: %v", err)
	}
	to, room, err := newPipe(2 * pipeRoom)
	if err != nil {
		t.Skipf("no pipes here: %v", err)
	}
	t.Cleanup(func() {
		p.close()
		if err := to.close(); err != nil {
			t.Error(err)
		}
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	largest := min(spliceMost, room-3*page) // the header and parts of pages have a page each
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.OneOf(rapid.IntRange(0, most), rapid.Map(rapid.IntRange(0, most/page), func(k int) int { return k * page })).Draw(t, "size")
		if err := file.Truncate(int64(size)); err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(data[:size], 0); err != nil {
			t.Fatal(err)
		}
		in := fuse.ReadIn{
			Offset: uint64(rapid.OneOf(rapid.IntRange(0, most+page), rapid.IntRange(max(size-largest, 0), size)).Draw(t, "offset")),
			Size:   uint32(rapid.OneOf(rapid.IntRange(spliceLeast, largest), rapid.Just(largest)).Draw(t, "asked")),
		}
		in.Unique = rapid.Uint64().Draw(t, "unique")
		want := data[min(int(in.Offset), size):min(int(in.Offset)+int(in.Size), size)]
		if done, clean := p.answer(&in, int(file.Fd()), to[1]); !done || !clean {
			t.Fatalf("done %v, clean %v", done, clean)
		}
		got := make([]byte, int(headOut)+len(want))
		if k, err := io.ReadFull(pipeReader(to[0]), got); err != nil {
			t.Fatalf("%d bytes: %v", k, err)
		}
		h := (*fuse.OutHeader)(unsafe.Pointer(&got[0]))
		if int(h.Length) != len(got) || h.Status != 0 || h.Unique != in.Unique || !bytes.Equal(got[headOut:], want) {
			t.Fatalf("%+v and %d bytes, of %d that there are, or others", *h, len(got)-int(headOut), len(want))
		}
		for _, fd := range []int{to[0], p.data[0], p.out[0]} {
			var b [1]byte
			if k, err := unix.Read(fd, b[:]); err != unix.EAGAIN {
				t.Fatalf("%d bytes are left: %v", k, err)
			}
		}
	})
}

type pipeReader int

func (fd pipeReader) Read(b []byte) (int, error) {
	n, err := unix.Read(int(fd), b)
	return max(n, 0), err
}
