package xz_test

import (
	"bytes"
	"io"
	"os/exec"
	"slices"
	"testing"

	lib "github.com/ulikunitz/xz"

	"github.com/plyfs/plyfs/internal/spill/spilltest"
)

// mostOfFuzz is what a fuzzed file may have.
const mostOfFuzz = 4 << 20

// compare compares what we make of a file with what the library makes of it, and,
// where they differ, with what xz says.
func compare(t *testing.T, program string, b []byte) {
	got, err := decodeFrom(bytes.NewReader(b), mostOfFuzz)
	if len(got) > mostOfFuzz || largeDictionary(b) {
		return
	}
	want, werr := byLibrary(b)
	if (err == nil) == (werr == nil) && (err != nil || bytes.Equal(got, want)) {
		return
	}
	if program == "" {
		t.Skipf("%v, the library says %v, and xz, which decides, is not installed", err, werr)
	}
	agrees(t, program, b)
}

// byLibrary is what the library makes of a file.
func byLibrary(b []byte) ([]byte, error) {
	r, err := lib.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, 2*mostOfFuzz))
}

// largeDictionary tells whether a block may ask for more than 16 MiB, which the
// library allocates.
func largeDictionary(b []byte) bool {
	for {
		at := bytes.Index(b, []byte{0x21, 1})
		if at < 0 || at+2 >= len(b) {
			return false
		}
		if b[at+2] > 24 && b[at+2] <= 40 {
			return true
		}
		b = b[at+1:]
	}
}

// FuzzReader: whole files, with checksums of headers, index and footer that are made
// right.
func FuzzReader(f *testing.F) {
	program, err := exec.LookPath("xz")
	if err == nil {
		for i, args := range [][]string{{"-0"}, {"-6", "--check=none"}, {"-9e", "--check=crc32"}, {"--check=sha256", "--block-size=300"},
			{"-T2", "--block-size=500"}, {"--lzma2=preset=1,lc=0,lp=3,pb=1", "--check=none"}} {
			for _, n := range []int{0, 1, 30, 900, 5000} {
				f.Add(pack(f, program, spilltest.Text(uint64(i), n), args...))
			}
		}
	}
	f.Add(append(file(0, append(raw([]byte("content"), true), 0), 7), 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = slices.Clone(b)
		mend(b)
		compare(t, program, b)
	})
}

// FuzzChunks: a file of whatever chunks.
func FuzzChunks(f *testing.F) {
	program, err := exec.LookPath("xz")
	if err == nil {
		for i, args := range []string{"preset=0", "preset=9e", "preset=6,lc=0,lp=4,pb=0", "preset=6,lc=4,pb=4", "preset=3,lc=1,lp=2,dict=4KiB"} {
			for _, n := range []int{1, 30, 900, 5000} {
				b := pack(f, program, spilltest.Text(uint64(i+9), n), "--format=raw", "--lzma2="+args)
				f.Add(byte(i), b)
				f.Add(byte(i), append(append(b[:len(b)-1:len(b)-1], raw([]byte("between"), false)...), b...))
			}
		}
	}
	f.Add(byte(0), append(raw([]byte("content"), true), raw([]byte("more"), false)...))
	f.Fuzz(func(t *testing.T, property byte, b []byte) {
		chunks, plain := walk(b)
		compare(t, program, file(property%23, chunks, plain))
	})
}

// walk makes b end as chunks do, and returns it with the size of the content that
// they say.
func walk(b []byte) (chunks []byte, plain int) {
	for at := 0; ; {
		if at >= len(b) || b[at] == 0 {
			return append(b[:min(at, len(b)):min(at, len(b))], 0), plain
		}
		rest := b[at:]
		size, n := 0, 0
		switch c := rest[0]; {
		case c >= 0x80 && len(rest) >= 6:
			size, n = int(c&31)<<16+int(rest[1])<<8+int(rest[2])+1, 5+int(rest[3])<<8+int(rest[4])+1
			if c >= 0xc0 {
				n++
			}
		case c < 3 && len(rest) >= 3:
			size = int(rest[1])<<8 + int(rest[2]) + 1
			n = 3 + size
		default:
			return append(b[:len(b):len(b)], 0), plain
		}
		at += n
		plain += size
	}
}
