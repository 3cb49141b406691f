package layertar

import (
	"bytes"
	"strconv"
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
	isOne := sp.major == "1" && sp.minor == "0"
	if !isOne && !sp.old {
		return nil
	}
	if sp.name != "" {
		h.name = sp.name
	}
	size, ok := h.stored, true
	if sp.realSize != "" {
		size, ok = paxInt(sp.realSize)
	}
	if !ok || strings.IndexByte(h.name, 0) >= 0 {
		return p.bad(h, "GNU.sparse records make no sense")
	}
	h.size, h.isSparse = size, true
	pairs := sp.pairs
	if isOne {
		var err error
		if pairs, err = p.sparseMapOne(h); err != nil {
			return err
		}
	}
	return p.setPairs(h, pairs)
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
func (p *parser) sparseMapOne(h *header) ([]string, error) {
	var text []byte
	want, have, from := int64(-1), int64(-1), 0
	for want < 0 || have < 2*want {
		if h.stored < blockSize {
			return nil, p.bad(h, "sparse map is longer than the member")
		}
		var b block
		if err := p.readBlock(&b, h); err != nil {
			return nil, err
		}
		h.stored -= blockSize
		text = append(text, b[:]...)
		have += int64(bytes.Count(b[:], []byte{'\n'}))
		if nl := bytes.IndexByte(text, '\n'); want < 0 && nl >= 0 {
			n, err := strconv.ParseInt(string(text[:nl]), 10, 32)
			if err != nil || n < 0 || n > maxSparseExtents {
				return nil, p.bad(h, "sparse map has a bad number of extents")
			}
			want, from = n, nl+1
		}
		if want < 0 || int64(len(text)) > (2*want+1)*21+blockSize {
			return nil, p.bad(h, "sparse map is not made of numbers")
		}
	}
	if want == 0 {
		return nil, nil
	}
	return strings.SplitN(string(text[from:]), "\n", int(2*want)+1)[:2*want], nil
}
