package layertar

import (
	"bytes"
	"hash/crc64"
	"testing"

	"pgregory.net/rapid"
)

// The standard library's checksum is the oracle.
func TestCRC(t *testing.T) {
	t.Parallel()
	table := crc64.MakeTable(crc64.ISO)
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "a")
		b := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "b")
		first := crcUpdate(0, a)
		if want := crc64.Checksum(a, table); first != want {
			t.Fatalf("%d bytes: %x, want %x", len(a), first, want)
		}
		want := crc64.Checksum(append(bytes.Clone(a), b...), table)
		if got := crcUpdate(first, b); got != want {
			t.Fatalf("continued: %x, want %x", got, want)
		}
		if got := crcJoin(first, crcUpdate(0, b), int64(len(b))); got != want {
			t.Fatalf("joined: %x, want %x", got, want)
		}
	})
}

func BenchmarkCRC(b *testing.B) {
	buf := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	b.Run("ours", func(b *testing.B) {
		b.SetBytes(int64(len(buf)))
		for range b.N {
			crcUpdate(0, buf)
		}
	})
	b.Run("hash/crc64", func(b *testing.B) {
		b.SetBytes(int64(len(buf)))
		for range b.N {
			crc64.Update(0, crcTable(), buf)
		}
	})
}
