package layertar

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// The layout of a tar header block (POSIX.1-1988 ustar, GNU tar's own fields
// beside it), as offset and length.
const (
	blockSize = 512

	offName, lenName         = 0, 100
	offMode, lenMode         = 100, 8
	offUID, lenUID           = 108, 8
	offGID, lenGID           = 116, 8
	offSize, lenSize         = 124, 12
	offMtime, lenMtime       = 136, 12
	offSum, lenSum           = 148, 8
	offType                  = 156
	offLink, lenLink         = 157, 100
	offMagic                 = 257
	offMajor, lenMajor       = 329, 8
	offMinor, lenMinor       = 337, 8
	offPrefix, lenPrefix     = 345, 155
	offGNUAtime, offGNUCtime = 345, 357
	lenStarPrefix            = 131
	offStarTrailer           = 508
	offGNUSparse             = 386
	offGNUExtended           = 482
	offGNUReal               = 483
	offExtExtended           = 504
	gnuSparseN, extSparseN   = 4, 21
	lenSparseField           = 12
	lenGNUExtent             = 2 * lenSparseField
	maxSparseExtents         = 1 << 20
	paxXattr                 = "SCHILY.xattr."
	paxSparse                = "GNU.sparse."
	paxSparseMajor           = paxSparse + "major"
	paxSparseMinor           = paxSparse + "minor"
	paxSparseName            = paxSparse + "name"
	paxSparseRealSize        = paxSparse + "realsize"
	paxSparseSize            = paxSparse + "size"
	paxSparseMap             = paxSparse + "map"
	paxSparseBlocks          = paxSparse + "numblocks"
	paxSparseOffset          = paxSparse + "offset"
	paxSparseNumBytes        = paxSparse + "numbytes"
	magicUstar, magicGNU     = "ustar\x00", "ustar  \x00"
	starTrailer              = "tar\x00"
	typeReg, typeRegA        = '0', '\x00'
	typeLink, typeSymlink    = '1', '2'
	typeChar, typeBlock      = '3', '4'
	typeDir, typeFifo        = '5', '6'
	typeCont, typeSparse     = '7', 'S'
	typePax, typeGlobal      = 'x', 'g'
	typeLongName, typeLongLn = 'L', 'K'
)

// header is one member, decoded: what its header block, PAX records and GNU
// long names say together, before any judgement.
type header struct {
	name, link string
	typ        byte
	mode       int64
	uid, gid   int64
	// size is the file's apparent size, stored the bytes in the stream.
	size, stored int64
	major, minor int64
	mtime, atime time.Time
	xattrs       []xattr
	// sparse holds the data extents of a sparse member, in order.
	sparse   []extent
	isSparse bool
	// offset is where the member begins in the decompressed stream.
	offset int64
}

type xattr struct {
	name  string
	value []byte
}

// extent is a range of data in a sparse file.
type extent struct{ off, len int64 }

// block is one header block.
type block [blockSize]byte

func (b *block) field(off, n int) []byte { return b[off : off+n] }

// str returns a field up to its first NUL.
func str(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

func (b *block) isZero() bool { return *b == block{} }

// number decodes an octal field or GNU's base-256 form.
func number(b []byte) (int64, bool) {
	if len(b) > 0 && b[0]&0x80 != 0 {
		return base256(b)
	}
	s := strings.Trim(str(bytes.Trim(b, " \x00")), " ")
	if s == "" {
		return 0, true
	}
	v, err := strconv.ParseUint(s, 8, 63)
	return int64(v), err == nil
}

// base256 decodes a big-endian two's complement number whose top bit is the
// mark and whose next one is the sign.
func base256(b []byte) (int64, bool) {
	var inv byte
	if b[0]&0x40 != 0 {
		inv = 0xff
	}
	var x uint64
	for i, c := range b {
		c ^= inv
		if i == 0 {
			c &= 0x7f
		}
		if x>>56 > 0 {
			return 0, false
		}
		x = x<<8 | uint64(c)
	}
	if x>>63 > 0 {
		return 0, false
	}
	if inv == 0xff {
		return ^int64(x), true
	}
	return int64(x), true
}

// sumOK compares the checksum with the unsigned sum and the signed one that
// old programs wrote.
func (b *block) sumOK() bool {
	want, ok := number(b.field(offSum, lenSum))
	if !ok {
		return false
	}
	var unsigned, signed int64
	for i, c := range b {
		if i >= offSum && i < offSum+lenSum {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return want == unsigned || want == signed
}

// decode reads the fields of a block whose checksum holds. The reason is set
// when a field is no number.
func (b *block) decode(h *header) (reason string) {
	h.name, h.link, h.typ = str(b.field(offName, lenName)), str(b.field(offLink, lenLink)), b[offType]
	for _, f := range []struct {
		off, n int
		to     *int64
		what   string
	}{
		{offMode, lenMode, &h.mode, "mode"}, {offUID, lenUID, &h.uid, "user ID"}, {offGID, lenGID, &h.gid, "group ID"},
		{offSize, lenSize, &h.stored, "size"},
	} {
		v, ok := number(b.field(f.off, f.n))
		if !ok {
			return f.what + " is not a number"
		}
		*f.to = v
	}
	sec, ok := number(b.field(offMtime, lenMtime))
	if !ok {
		return "time is not a number"
	}
	h.mtime = time.Unix(sec, 0)
	magic := string(b.field(offMagic, 8))
	if !strings.HasPrefix(magic, magicUstar) && magic != magicGNU {
		return ""
	}
	if h.typ == typeChar || h.typ == typeBlock {
		var okA, okB bool
		h.major, okA = number(b.field(offMajor, lenMajor))
		h.minor, okB = number(b.field(offMinor, lenMinor))
		if !okA || !okB {
			return "device number is not a number"
		}
	}
	if magic != magicGNU || b.goPrefix() {
		h.name = b.prefix(h.name)
	}
	return ""
}

// goPrefix tells whether a GNU block has a name's prefix where its format has
// times: so did Go before 1.8 write it (golang.org/issue/12594), and its readers
// since have taken for one what is text and no times.
func (b *block) goPrefix() bool {
	for _, off := range [...]int{offGNUAtime, offGNUCtime} {
		if b[off] == 0 {
			continue
		}
		f := b.field(off, lenMtime)
		_, ok := number(f)
		if f[0]&0x80 == 0 && ok { // no space after its digits is forgiven, as there
			s := str(bytes.Trim(f, " \x00"))
			ok = strings.Trim(s, " ") == s
		}
		if !ok {
			text := str(b.field(offPrefix, lenPrefix))
			return strings.IndexFunc(text, func(r rune) bool { return r >= 0x80 || r == 0 }) < 0
		}
	}
	return false
}

// prefix joins the ustar prefix field, which star's variant has shortened.
func (b *block) prefix(name string) string {
	n := lenPrefix
	if string(b.field(offStarTrailer, 4)) == starTrailer {
		n = lenStarPrefix
	}
	if p := str(b.field(offPrefix, n)); p != "" {
		return p + "/" + name
	}
	return name
}

// hasData tells whether the type's size field counts bytes that follow.
func hasData(typ byte) bool {
	switch typ {
	case typeLink, typeSymlink, typeChar, typeBlock, typeDir, typeFifo:
		return false
	}
	return true
}
