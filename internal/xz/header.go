package xz

import (
	"encoding/binary"
	"hash/crc32"
)

// summed tells whether the last four bytes of b are the CRC32 of the others.
func summed(b []byte) bool {
	n := len(b) - 4
	return crc32.ChecksumIEEE(b[:n]) == binary.LittleEndian.Uint32(b[n:])
}

// streamHeader returns the flags of a stream's header (2.1.1).
func streamHeader(b [12]byte) (flags [2]byte, err error) {
	flags = [2]byte(b[6:8])
	switch {
	case string(b[:6]) != "\xfd7zXZ\x00":
		return flags, damaged("no stream begins where one must")
	case !summed(b[6:]):
		return flags, damaged("the checksum of a stream's header is another")
	case flags[0] != 0 || flags[1]&0xf0 != 0:
		return flags, unsupported("a stream's flags %#02x, %#02x have no meaning yet", flags[0], flags[1])
	}
	return flags, nil
}

// streamFooter judges a stream's footer (2.1.2) by the flags of its header and the
// size of its index.
func streamFooter(b [12]byte, flags [2]byte, index int64) error {
	said := (int64(binary.LittleEndian.Uint32(b[4:8])) + 1) * 4
	switch {
	case string(b[10:]) != "YZ":
		return damaged("a stream does not end as one must")
	case crc32.ChecksumIEEE(b[4:10]) != binary.LittleEndian.Uint32(b[:4]):
		return damaged("the checksum of a stream's footer is another")
	case said != index:
		return damaged("a stream's index has %d bytes, and its footer says %d", index, said)
	case [2]byte(b[8:10]) != flags:
		return damaged("a stream's footer has other flags than its header")
	}
	return nil
}

// blockHeader is what a block's header says.
type blockHeader struct {
	hasPacked, hasPlain bool
	packed, size        int64 // bytes of compressed data and of content
	dict                int64 // bytes of the dictionary
}

// lzma2ID is the filter that is decoded.
const lzma2ID = 0x21

// filterName names the filters of the format (5.3), and others by their number.
func filterName(id int64) string {
	switch id {
	case 3:
		return "delta"
	case 4:
		return "x86"
	case 5:
		return "PowerPC"
	case 6:
		return "IA-64"
	case 7:
		return "ARM"
	case 8:
		return "ARM-Thumb"
	case 9:
		return "SPARC"
	case 10:
		return "ARM64"
	case 11:
		return "RISC-V"
	}
	return ""
}

// parseBlockHeader reads a whole block header (3.1).
func parseBlockHeader(b []byte) (h blockHeader, err error) {
	if !summed(b) {
		return h, damaged("the checksum of a block's header is another")
	}
	flags := b[1]
	in := numbers{b: b[2 : len(b)-4]}
	if flags&0x3c != 0 {
		return h, unsupported("a block's flags %#02x have no meaning yet", flags)
	}
	if h.hasPacked = flags&0x40 != 0; h.hasPacked {
		h.packed = in.next()
	}
	if h.hasPlain = flags&0x80 != 0; h.hasPlain {
		h.size = in.next()
	}
	if in.bad || h.hasPacked && h.packed == 0 {
		return h, damaged("a block's header has sizes that are none")
	}
	if h.dict, err = in.filters(int(flags&3) + 1); err != nil {
		return h, err
	}
	for _, c := range in.b {
		if c != 0 {
			return h, unsupported("a block's header has fields that have no meaning yet")
		}
	}
	return h, nil
}

// filters reads n filters' flags (3.1.5), of which the first must be LZMA2 and the
// last, and returns the size of its dictionary (5.3.1).
func (in *numbers) filters(n int) (dict int64, err error) {
	id, size := in.next(), in.next()
	switch {
	case in.bad:
		return 0, damaged("a block's filters are cut off")
	case id == lzma2ID && n > 1:
		return 0, damaged("a block has a filter after LZMA2, which must be the last")
	case id != lzma2ID && filterName(id) != "":
		return 0, unsupported("the filter %s is not supported, only LZMA2 alone: pack it again without", filterName(id))
	case id != lzma2ID:
		return 0, unsupported("the filter %#x is not known", id)
	case size != 1 || len(in.b) == 0:
		return 0, damaged("the properties of LZMA2 are not one byte")
	}
	p := in.b[0]
	in.b = in.b[1:]
	switch {
	case p > 40:
		return 0, damaged("the size of LZMA2's dictionary is none: %#02x", p)
	case p == 40:
		return 1<<32 - 1, nil
	}
	return (2 | int64(p&1)) << (p/2 + 11), nil
}

// numbers reads numbers (1.2) from b; bad is set where there is none.
type numbers struct {
	b   []byte
	bad bool
}

func (in *numbers) next() int64 {
	var n number
	for i, c := range in.b {
		if more, ok := n.add(c); !ok {
			break
		} else if !more {
			in.b = in.b[i+1:]
			return n.value
		}
	}
	in.bad, in.b = true, nil
	return 0
}

// number is one of up to 63 bits, in groups of seven, the lowest first (1.2).
type number struct {
	value int64
	shift uint
}

// add takes the next byte, and tells whether more must follow; ok is false for one
// that is no such number.
func (n *number) add(c byte) (more, ok bool) {
	if n.shift > 56 || c == 0 && n.shift > 0 {
		return false, false
	}
	n.value |= int64(c&0x7f) << n.shift
	n.shift += 7
	return c&0x80 != 0, true
}
