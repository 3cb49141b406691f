package layertar

import (
	"bytes"
	"cmp"
	"strings"
)

// Sparse members come in four forms: GNU's old type S, whose extents stand in
// the header block and in extension blocks; and the PAX forms 0.0 (repeated
// records), 0.1 (one record) and 1.0 (a text map in front of the data).
// All of them are taken apart into header.sparse, and the stored size into
// header.stored less the map.

// checkSparse is the pure judgement of a map: extents in order, apart, inside
// the file, and together as long as the data that follows.
func checkSparse(ext []extent, size, stored int64) (reason string) {
	if size < 0 {
		return "negative size"
	}
	var end, sum int64
	for _, e := range ext {
		switch {
		case e.off < 0 || e.len < 0 || e.off > size-e.len:
			return "sparse extent lies outside of the file"
		case e.off < end:
			return "sparse extents overlap or are out of order"
		}
		end, sum = e.off+e.len, sum+e.len
	}
	if sum != stored {
		return "sparse map and stored size disagree"
	}
	return ""
}

// gnuExtents decodes up to n extents at b; an empty offset ends them.
func gnuExtents(b []byte, n int, ext []extent) ([]extent, bool) {
	for i := range n {
		f := b[i*lenGNUExtent : (i+1)*lenGNUExtent]
		if f[0] == 0 {
			break
		}
		off, okA := number(f[:lenSparseField])
		l, okB := number(f[lenSparseField:])
		if !okA || !okB {
			return nil, false
		}
		ext = append(ext, extent{off, l})
	}
	return ext, true
}

// gnuSparse reads the extents of a type S member.
func (p *parser) gnuSparse(b *block, h *header) error {
	size, ok := number(b.field(offGNUReal, lenSparseField))
	ext, ok2 := gnuExtents(b[offGNUSparse:], gnuSparseN, nil)
	if !ok || !ok2 {
		return p.bad(h, "sparse map is not made of numbers")
	}
	for more := b[offGNUExtended] != 0; more; {
		var x block
		if err := p.readBlock(&x, h); err != nil {
			return err
		}
		if ext, ok = gnuExtents(x[:], extSparseN, ext); !ok {
			return p.bad(h, "sparse map is not made of numbers")
		}
		if len(ext) > maxSparseExtents {
			return p.bad(h, "sparse map has too many extents")
		}
		more = x[offExtExtended] != 0
	}
	h.typ, h.size, h.sparse, h.isSparse = typeReg, size, ext, true
	return nil
}

// paxSparse applies the GNU.sparse records of a PAX header.
func (p *parser) paxSparse(h *header, sp *sparseInfo) error {
	one, any := sp.version()
	if !any {
		return nil
	}
	if h.typ != typeReg {
		return p.bad(h, "sparse map of what has no content")
	}
	if sp.name != "" {
		h.name = sp.name
	}
	size, ok := h.stored, true
	if text := cmp.Or(sp.size, sp.realSize); text != "" {
		size, ok = paxInt(text)
	}
	if !ok || strings.IndexByte(h.name, 0) >= 0 {
		return p.bad(h, "GNU.sparse records make no sense")
	}
	h.size, h.isSparse = size, true
	if one {
		return p.sparseMapOne(h)
	}
	if n, ok := paxInt(sp.blocks); !ok || n != int64(len(sp.pairs)/2) {
		return p.bad(h, "sparse map has another number of extents than it says")
	}
	return p.setPairs(h, sp.pairs)
}

func (p *parser) setPairs(h *header, pairs []string) error {
	if len(pairs)%2 != 0 {
		return p.bad(h, "sparse map has an odd number of entries")
	}
	for i := 0; i < len(pairs); i += 2 {
		off, okA := paxInt(pairs[i])
		l, okB := paxInt(pairs[i+1])
		if !okA || !okB {
			return p.bad(h, "sparse map is not made of numbers")
		}
		h.sparse = append(h.sparse, extent{off, l})
	}
	return nil
}

// sparseMapOne reads the text map of format 1.0: the number of extents, then
// their numbers, each on a line, padded to a block; it counts as stored data.
func (p *parser) sparseMapOne(h *header) error {
	m := sparseText{left: 1}
	for m.left > 0 {
		if h.stored < blockSize {
			return p.bad(h, "sparse map is longer than the member")
		}
		var b block
		if err := p.readBlock(&b, h); err != nil {
			return err
		}
		h.stored -= blockSize
		if reason := m.feed(b[:], h.stored); reason != "" {
			return p.bad(h, reason)
		}
	}
	h.sparse = m.ext
	return nil
}

// sparseText takes a map's numbers from its text as it comes.
type sparseText struct {
	ext     []extent
	left    int64 // numbers that are to come, the number of extents first
	counted bool
	half    bool // the last extent's length is to come
	line    []byte
}

// maxNumber is the length of the longest 64-bit number.
const maxNumber = 20

// feed takes the text up to the last number; stored is how much of the member
// follows it.
func (m *sparseText) feed(b []byte, stored int64) (reason string) {
	for m.left > 0 {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		if m.line = append(m.line, line...); len(m.line) > maxNumber {
			return "sparse map is not made of numbers"
		}
		if !whole {
			return ""
		}
		n, ok := paxInt(string(m.line))
		if !ok {
			return "sparse map is not made of numbers"
		}
		if reason := m.number(n, int64(len(rest))+stored); reason != "" {
			return reason
		}
		m.line, b = m.line[:0], rest
	}
	return ""
}

// number takes the next one; text is how much may follow.
func (m *sparseText) number(n, text int64) (reason string) {
	m.left--
	switch {
	case !m.counted:
		// Each number takes two bytes at least.
		if n < 0 || n > maxSparseExtents {
			return "sparse map has a bad number of extents"
		}
		if 4*n > text {
			return "sparse map is longer than the member"
		}
		m.counted, m.left = true, 2*n
		m.ext = make([]extent, 0, n)
	case m.half:
		m.ext[len(m.ext)-1].len, m.half = n, false
	default:
		m.ext, m.half = append(m.ext, extent{off: n}), true
	}
	return ""
}
