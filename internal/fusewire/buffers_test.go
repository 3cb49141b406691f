package fusewire

import (
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// TestBuffersBeginInOnePage: a request with a name, or an answer with attributes, is
// all in one page, which the kernel looks up for each; data is aligned.
func TestBuffersBeginInOnePage(t *testing.T) {
	t.Parallel()
	const small = 1024
	for range 100 {
		b := newBuffers(1 << 17)
		for name, c := range map[string]struct {
			buf  []byte
			head uintptr
		}{"request": {b.in, unsafe.Sizeof(fuse.WriteIn{})}, "answer": {b.out, unsafe.Sizeof(fuse.OutHeader{})}} {
			at := uintptr(unsafe.Pointer(&c.buf[0]))
			if at/page != (at+small)/page {
				t.Errorf("a %s begins %d bytes before the end of a page", name, page-at%page)
			}
			if (at+c.head)%line != 0 {
				t.Errorf("data of a %s is at %#x", name, at+c.head)
			}
		}
	}
}
