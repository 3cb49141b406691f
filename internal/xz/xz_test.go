package xz_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/spill/spilltest"
	"github.com/plyfs/plyfs/internal/xz"
)

// decode decodes all streams of b, with the padding between and after them.
func decode(b []byte) ([]byte, error) { return decodeFrom(bytes.NewReader(b), 1<<40) }

// decodeFrom does that until there are more than most bytes.
func decodeFrom(src io.Reader, most int64) (out []byte, err error) {
	in := bufio.NewReader(src)
	r := xz.NewReader(in)
	defer func() { err = errors.Join(err, r.Close()) }()
	for first := true; ; first = false {
		c, err := in.Peek(1)
		switch {
		case err != nil && !first:
			return out, nil
		case err == nil && c[0] == 0 && !first:
			if err := r.Padding(); err != nil {
				return out, err
			}
			continue
		}
		part, err := io.ReadAll(io.LimitReader(r, most-int64(len(out))+1))
		if out = append(out, part...); err != nil || int64(len(out)) > most {
			return out, err
		}
	}
}

// xzProgram is where xz is.
func xzProgram(t testing.TB) string {
	t.Helper()
	program, err := exec.LookPath("xz")
	if err != nil {
		t.Skip("xz is not installed: this test asks it for streams and what it says of them")
	}
	return program
}

// pack packs b with xz.
func pack(t interface{ Fatalf(string, ...any) }, program string, b []byte, args ...string) []byte {
	cmd := exec.Command(program, append([]string{"-c", "-q"}, args...)...)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("xz %v: %v", args, err)
	}
	return out
}

// unpack is what xz makes of a file, and whether it takes it.
func unpack(program string, b []byte) ([]byte, bool) {
	cmd := exec.Command(program, "-dcq", "-T1")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	return out, err == nil
}

// options draws options of xz.
func options(t *rapid.T) []string {
	preset := rapid.SampledFrom([]string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "0e", "3e", "6e", "9e"}).Draw(t, "preset")
	args := []string{"--check=" + rapid.SampledFrom([]string{"none", "crc32", "crc64", "sha256"}).Draw(t, "check")}
	if rapid.Bool().Draw(t, "plain preset") {
		args = append(args, "-"+preset)
	} else {
		lc := rapid.IntRange(0, 4).Draw(t, "lc")
		args = append(args, fmt.Sprintf("--lzma2=preset=%s,lc=%d,lp=%d,pb=%d,dict=%d", preset, lc, rapid.IntRange(0, 4-lc).Draw(t, "lp"),
			rapid.IntRange(0, 4).Draw(t, "pb"), rapid.SampledFrom([]int{4096, 4097, 6144, 64 << 10, 1 << 20, 8 << 20, 9 << 20, 12 << 20}).Draw(t, "dict")))
	}
	if rapid.Bool().Draw(t, "blocks") {
		args = append(args, fmt.Sprintf("--block-size=%d", rapid.SampledFrom([]int{1000, 65536, 300_001}).Draw(t, "block")))
	}
	if rapid.Bool().Draw(t, "flush") {
		args = append(args, "--flush-timeout=1")
	}
	return append(args, rapid.SampledFrom([]string{"-T1", "-T2"}).Draw(t, "threads"))
}

// TestAsXz: what xz packs with any options comes out as it was, several files with
// padding between and after them as one, also from a source that gives a byte at a
// time; cut off anywhere it is an unexpected end.
func TestAsXz(t *testing.T) {
	t.Parallel()
	program := xzProgram(t)
	rapid.Check(t, func(t *rapid.T) {
		var packed, whole []byte
		var ends []int // where a file may end
		for range rapid.IntRange(1, 3).Draw(t, "streams") {
			size := rapid.SampledFrom([]int{0, 1, 2, 300, 4096, 70_000, 500_000}).Draw(t, "size")
			b := spilltest.Text(rapid.Uint64Range(0, 1000).Draw(t, "seed"), size)
			if rapid.IntRange(0, 4).Draw(t, "noise") == 0 {
				random := rand.NewChaCha8([32]byte{byte(size)})
				_, _ = random.Read(b) // never fails
			}
			packed, whole = append(packed, pack(t, program, b, options(t)...)...), append(whole, b...)
			ends = append(ends, len(packed))
			for range rapid.IntRange(0, 2).Draw(t, "padding") {
				packed = append(packed, 0, 0, 0, 0)
				ends = append(ends, len(packed))
			}
		}
		var src io.Reader = bytes.NewReader(packed)
		if rapid.Bool().Draw(t, "bytes") {
			src = iotest.OneByteReader(src)
		}
		if got, err := decodeFrom(src, 1<<40); err != nil || !bytes.Equal(got, whole) {
			t.Fatalf("%d bytes of %d, %v", len(got), len(whole), err)
		}
		cut := rapid.IntRange(0, len(packed)-1).Draw(t, "cut")
		if _, err := decode(packed[:cut]); (err == nil) != slices.Contains(ends, cut) || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut off at %d of %d: %v", cut, len(packed), err)
		}
	})
}

// TestFarAway: what is looked back at beyond the memory, in dictionaries of any size.
func TestFarAway(t *testing.T) {
	t.Parallel()
	program := xzProgram(t)
	part := spilltest.Text(1, 13<<20)
	content := slices.Concat(part, spilltest.Text(2, 1<<20), part)
	for _, dict := range []int{8, 12, 16, 64} {
		packed := pack(t, program, content, fmt.Sprintf("--lzma2=preset=0,dict=%dMiB", dict), "-T1")
		if got, err := decode(packed); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d MiB: %d bytes of %d, %v", dict, len(got), len(content), err)
		}
		if dict < 64 {
			continue
		}
		for _, property := range []byte{37, 40} { // 1536 MiB, 4 GiB
			packed[bytes.Index(packed, []byte{0x21, 1})+2] = property
			mend(packed)
			if got, err := decode(packed); err != nil || !bytes.Equal(got, content) {
				t.Errorf("property %d: %d bytes of %d, %v", property, len(got), len(content), err)
			}
		}
	}
}

// TestDamage: of a file with turned bits, or bytes that are left out or come twice,
// xz and we say the same.
func TestDamage(t *testing.T) {
	t.Parallel()
	program := xzProgram(t)
	content := spilltest.Text(3, 20_000)
	rapid.Check(t, func(t *rapid.T) {
		good := pack(t, program, content[:rapid.SampledFrom([]int{0, 1, 400, 20_000}).Draw(t, "size")], options(t)...)
		good = append(good, make([]byte, rapid.IntRange(0, 9).Draw(t, "padding"))...)
		bad := slices.Clone(good)
		at := rapid.IntRange(0, len(bad)-1).Draw(t, "at")
		switch n := min(len(bad)-at, rapid.IntRange(1, 20).Draw(t, "n")); rapid.IntRange(0, 2).Draw(t, "how") {
		case 0:
			bad[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case 1:
			bad = slices.Delete(bad, at, at+n)
		case 2:
			bad = slices.Insert(bad, at, slices.Clone(bad[at:at+n])...)
		}
		if rapid.Bool().Draw(t, "mend") {
			mend(bad)
		}
		agrees(t, program, bad)
	})
}

// agrees compares what we make of a file with what xz makes of it.
func agrees(t interface{ Fatalf(string, ...any) }, program string, b []byte) {
	got, err := decode(b)
	if errors.Is(err, xz.ErrUnsupported) {
		return // xz knows more filters
	}
	want, ok := unpack(program, b)
	if (err == nil) != ok || ok && !bytes.Equal(got, want) {
		t.Fatalf("%x: %d bytes, %v, and xz takes it: %v, %d bytes", b[:min(len(b), 4000)], len(got), err, ok, len(want))
	}
}

// mend makes the checksums of headers, index and footer right, so that what was
// changed is looked at.
func mend(b []byte) {
	sum := func(b []byte) {
		binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.ChecksumIEEE(b[:len(b)-4]))
	}
	if len(b) < 12 {
		return
	}
	copy(b, "\xfd7zXZ\x00")
	sum(b[6:12])
	check := 0
	if kind := b[7] & 15; kind > 0 {
		check = 4 << ((kind - 1) / 3)
	}
	for b = b[12:]; len(b) > 0 && b[0] != 0; { // blocks
		n := (int(b[0]) + 1) * 4
		if len(b) < n {
			return
		}
		sum(b[:n])
		packed := 0
		for b = b[n:]; ; packed += n { // chunks
			if len(b) < 6 {
				return
			}
			switch c := b[0]; {
			case c >= 0x80:
				n = 5 + int(b[3])<<8 + int(b[4]) + 1
				if c >= 0xc0 {
					n++
				}
			case c > 0:
				n = 3 + int(b[1])<<8 + int(b[2]) + 1
			default:
				n = 1
			}
			if len(b) < n {
				return
			}
			if b = b[n:]; n == 1 {
				break
			}
		}
		if packed++; len(b) < -packed&3+check {
			return
		}
		b = b[-packed&3+check:]
	}
	at := bytes.LastIndexByte(b, 'Z') // the footer, behind an index that may be changed
	if at < 15 || at%4 != 3 {
		return
	}
	sum(b[:at-11])
	f := b[at-11 : at+1]
	binary.LittleEndian.PutUint32(f[:], crc32.ChecksumIEEE(f[4:10]))
}

// file is an .xz file without checks, of one block of chunks, of a dictionary's
// property; plain is its content's size.
func file(property byte, chunks []byte, plain int) []byte {
	b := []byte("\xfd7zXZ\x00\x00\x00")
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b[6:8]))
	head := []byte{2, 0, 0x21, 1, property, 0, 0, 0}
	head = binary.LittleEndian.AppendUint32(head, crc32.ChecksumIEEE(head))
	b = append(append(b, head...), chunks...)
	b = append(b, make([]byte, -len(chunks)&3)...)
	index := binary.AppendUvarint(binary.AppendUvarint([]byte{0, 1}, uint64(len(head)+len(chunks))), uint64(plain))
	index = append(index, make([]byte, -len(index)&3)...)
	index = binary.LittleEndian.AppendUint32(index, crc32.ChecksumIEEE(index))
	foot := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1))
	foot = append(foot, 0, 0)
	b = binary.LittleEndian.AppendUint32(append(b, index...), crc32.ChecksumIEEE(foot))
	return append(append(b, foot...), "YZ"...)
}

// raw is a chunk of content as it is.
func raw(content []byte, first bool) []byte {
	n := len(content) - 1
	head := []byte{2, byte(n >> 8), byte(n)}
	if first {
		head[0] = 1
	}
	return append(head, content...)
}

// TestRefused: what is wrong is named.
func TestRefused(t *testing.T) {
	t.Parallel()
	good := file(0, append(raw([]byte("content"), true), 0), 7)
	if got, err := decode(good); err != nil || string(got) != "content" {
		t.Fatalf("%q, %v", got, err)
	}
	change := func(at int, b ...byte) []byte {
		bad := slices.Clone(good)
		copy(bad[at:], b)
		mend(bad)
		return bad
	}
	for _, c := range []struct {
		name string
		b    []byte
		kind error
		want string
	}{
		{"no stream", []byte("something else"), xz.ErrDamaged, "no stream begins"},
		{"a bit of the flags", change(7, 0x10), xz.ErrUnsupported, "flags"},
		{"an unknown check", change(7, 2), xz.ErrUnsupported, "checks of the kind 2"},
		{"a block's flags", change(13, 4), xz.ErrUnsupported, "block's flags"},
		{"a bit of the header", append(append(slices.Clone(good[:8]), good[8]^1), good[9:]...), xz.ErrDamaged, "checksum of a stream's header"},
		{"x86", change(13, 0, 4, 0), xz.ErrUnsupported, "filter x86 "},
		{"delta", change(13, 0, 3, 1), xz.ErrUnsupported, "filter delta "},
		{"a filter", change(13, 0, 0x7f, 1), xz.ErrUnsupported, "filter 0x7f is not known"},
		{"two filters", change(13, 1), xz.ErrDamaged, "after LZMA2"},
		{"more properties", change(15, 2), xz.ErrDamaged, "properties of LZMA2"},
		{"a dictionary", change(16, 41), xz.ErrDamaged, "dictionary"},
		{"padding of the header", change(17, 1), xz.ErrUnsupported, "no meaning yet"},
		{"no size", change(13, 0x40, 0, 0x21, 1, 0), xz.ErrDamaged, "sizes that are none"},
		{"another packed size", change(13, 0x40, 12, 0x21, 1, 0), xz.ErrDamaged, "11 bytes of data, and it says 12"},
		{"a smaller packed size", change(13, 0x40, 9, 0x21, 1, 0), xz.ErrDamaged, "more data than the 9 bytes"},
		{"another size", change(13, 0x80, 8, 0x21, 1, 0), xz.ErrDamaged, "7 bytes of content, and it says 8"},
		{"a smaller size", change(13, 0x80, 6, 0x21, 1, 0), xz.ErrDamaged, "more content than the 6 bytes"},
		{"no empty dictionary", change(24, 2), xz.ErrDamaged, "begin with an empty dictionary"},
		{"a kind of chunks", change(24, 3), xz.ErrDamaged, "kind that is none"},
		{"padding of a block", change(35, 1), xz.ErrDamaged, "block's padding"},
		{"more blocks", change(37, 2), xz.ErrDamaged, "1 blocks, and its index says 2"},
		{"other sizes", change(38, 24), xz.ErrDamaged, "other sizes"},
		{"a long number", change(38, 0x97, 0), xz.ErrDamaged, "number that is none"},
		{"another index size", change(48, 9), xz.ErrDamaged, "its footer says 40"},
		{"other flags", change(53, 1), xz.ErrDamaged, "other flags"},
		{"another end", change(54, 'X'), xz.ErrDamaged, "does not end as one must"},
		{"padding", append(slices.Clone(good), 0, 0, 1, 0), xz.ErrDamaged, "groups of four"},
		{"no properties", file(0, []byte{1, 0, 0, 'a', 0x80, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0}, 2), xz.ErrDamaged, "no properties"},
		{"properties", file(0, []byte{0xe0, 0, 0, 0, 5, 225, 0, 0, 0, 0, 0, 0, 0}, 2), xz.ErrDamaged, "properties of LZMA"},
		{"lc and lp", file(0, []byte{0xe0, 0, 0, 0, 5, 4 + 9, 0, 0, 0, 0, 0, 0, 0}, 2), xz.ErrDamaged, "lc 4 and lp 1"},
		{"a short chunk", file(0, []byte{0xe0, 0, 0, 0, 3, 93, 0, 0, 0, 0, 0}, 2), xz.ErrDamaged, "chunk of 4 bytes"},
		{"a chunk's first byte", file(0, []byte{0xe0, 0, 0, 0, 4, 93, 1, 0, 0, 0, 0, 0}, 2), xz.ErrDamaged, "first byte"},
		{"a chunk that ends early", file(0, []byte{0xe0, 0, 9, 0, 4, 93, 0, 1, 2, 3, 4, 0}, 10), xz.ErrDamaged, "cut off"},
		{"a match before the beginning", file(0, []byte{0xe0, 0xff, 0xff, 0, 9, 93, 0, 255, 255, 255, 250, 1, 1, 1, 1, 1, 0}, 10), xz.ErrDamaged, "looks back"},
		{"a chunk that ends late", file(0, []byte{0xe0, 0, 0, 0, 9, 93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 1), xz.ErrDamaged, "does not end with its content"},
	} {
		_, err := decode(c.b)
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "before its byte ") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	late := errors.New("late")
	if _, err := decodeFrom(io.MultiReader(bytes.NewReader(good[:30]), iotest.ErrReader(late)), 100); !errors.Is(err, late) {
		t.Errorf("the source's error is %v", err)
	}
}

// TestMemory: a hundred MiB of dictionaries of any size are decoded in less than 20, and
// many blocks in no more than one.
func TestMemory(t *testing.T) { // not parallel: it counts what all goroutines allocate
	random := rand.NewChaCha8([32]byte{5})
	noise := make([]byte, 64<<10)
	_, _ = random.Read(noise) // never fails
	first, later := raw(noise, true), raw(noise, false)
	const chunks = 1600
	for _, property := range []byte{22, 24, 28, 40} {
		head := file(property, nil, 0)[:24]
		parts := []io.Reader{bytes.NewReader(head), bytes.NewReader(first)}
		for range chunks - 1 {
			parts = append(parts, bytes.NewReader(later))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := xz.NewReader(bufio.NewReader(io.MultiReader(parts...)))
		n, err := io.Copy(io.Discard, r)
		if !errors.Is(err, io.ErrUnexpectedEOF) || n != chunks<<16 {
			t.Fatalf("%d bytes, %v", n, err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 20<<20 {
			t.Errorf("property %d: %d bytes were allocated", property, got)
		}
	}
}
