package spill

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// TestWindow: what a Window repeats is what a slice of the whole run holds, near
// and far, across the end of its file and where the repeated reaches into itself.
func TestWindow(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 3*windowMemory).Draw(t, "size")
		w := NewWindow(rapid.SampledFrom([]int64{1, size}).Draw(t, "first size"))
		w.Append(nil)
		if err := w.Reset(size); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}()
		source := rand.NewChaCha8([32]byte(binary.LittleEndian.AppendUint64(make([]byte, 24), rapid.Uint64().Draw(t, "seed"))))
		random := rand.New(source)
		var whole []byte
		for range rapid.IntRange(1, 90).Draw(t, "blocks") {
			const block = 128 << 10
			if err := w.Room(block); err != nil {
				t.Fatal(err)
			}
			before := len(whole)
			for left := block; left > 0; {
				n := 1 + random.IntN(min(left, 20_000))
				left -= n
				if w.Len() != min(size, int64(len(whole))) {
					t.Fatalf("Len is %d after %d of %d", w.Len(), len(whole), size)
				}
				if len(whole) == 0 || random.IntN(3) == 0 {
					b := make([]byte, n)
					if _, err := source.Read(b); err != nil {
						t.Fatal(err)
					}
					w.Append(b)
					whole = append(whole, b...)
					continue
				}
				off := w.Len() - random.Int64N(w.Len())
				if random.IntN(4) == 0 {
					off = 1 + random.Int64N(min(w.Len(), 9))
				}
				if b, err := w.Byte(off); err != nil || b != whole[len(whole)-int(off)] {
					t.Fatalf("the byte %d before %d is %d, %v", off, len(whole), b, err)
				}
				if random.IntN(4) == 0 && int(off) <= len(w.Memory()) { // by the caller himself
					m := w.Memory()
					for range n {
						m = append(m, m[len(m)-int(off)])
					}
					w.Grow(n)
				} else if err := w.Repeat(off, n); err != nil {
					t.Fatal(err)
				}
				for left := n; left > 0; {
					part := min(left, int(off)) // beyond it, it reaches into what it makes
					whole = append(whole, whole[len(whole)-int(off):][:part]...)
					left -= part
				}
			}
			if !bytes.Equal(w.Last(len(whole)-before), whole[before:]) {
				t.Fatalf("block at %d differs", before)
			}
		}
		if most := w.near + windowSlack; cap(w.buf) > most || most > windowWhole+windowSlack+2*pageSize {
			t.Fatalf("%d bytes in memory, for a window of %d", cap(w.buf), size)
		}
		if (w.file != nil) != (size > windowWhole && w.base > 0) {
			t.Fatalf("a window of %d has a file: %v", size, w.file != nil)
		}
	})
}
