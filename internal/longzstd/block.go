package longzstd

import (
	"github.com/klauspost/compress/huff0"

	"github.com/plyfs/plyfs/internal/spill"
)

// decoder holds what one block of a frame leaves to the next, and memory.
type decoder struct {
	repeats [3]int64 // the last offsets

	huff   *huff0.Scratch
	lits   []byte
	usable bool // huff is this frame's

	lengths, matches, offs source
}

// source is one kind of symbols with the table that is used for it.
type source struct {
	kind
	table
	usable bool // the table is this frame's
}

func (d *decoder) reset() {
	d.repeats, d.usable = [3]int64{1, 4, 8}, false
	if d.lits == nil {
		d.lits = make([]byte, maxBlock)
		d.lengths.kind, d.matches.kind, d.offs.kind = litLengths(), matchLengths(), offsets()
	}
	d.lengths.usable, d.matches.usable, d.offs.usable = false, false, false
}

// decode adds a compressed block's content to w, which has room for limit bytes,
// and returns its size.
func (d *decoder) decode(w *spill.Window, b []byte, limit int) (int, error) {
	lits, b, err := d.literals(b, limit)
	if err != nil {
		return 0, err
	}
	count, b, err := d.sequenceHead(b)
	if err != nil {
		return 0, err
	}
	if count == 0 {
		w.Append(lits)
		return len(lits), nil
	}
	return d.sequences(w, lits, b, count, limit)
}

// literals decodes the literals that b begins with, which stay valid until the
// next call, and returns what follows them.
func (d *decoder) literals(b []byte, limit int) (lits, rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil, damaged("a block without literals")
	}
	form, sizes := b[0]&3, b[0]>>2&3
	if form >= 2 {
		return d.packed(b, form == 3, sizes, limit)
	}
	head := [4]int{1, 2, 1, 3}[sizes]
	if len(b) < head {
		return nil, nil, damaged("literals without a size")
	}
	var n int
	switch head {
	case 1:
		n = int(b[0] >> 3)
	case 2:
		n = int(b[0]>>4) | int(b[1])<<4
	case 3:
		n = int(b[0]>>4) | int(b[1])<<4 | int(b[2])<<12
	}
	b = b[head:]
	stored := n
	if form == 1 {
		stored = 1
	}
	if n > limit || len(b) < stored {
		return nil, nil, damaged("literals that are cut off")
	}
	if form == 0 {
		return b[:n], b[n:], nil
	}
	lits = d.lits[:n]
	for i := range lits {
		lits[i] = b[0]
	}
	return lits, b[1:], nil
}

// packed decodes literals in Huffman codes; again says with the last table.
func (d *decoder) packed(b []byte, again bool, sizes byte, limit int) (lits, rest []byte, err error) {
	head, width := [4]int{3, 3, 4, 5}[sizes], [4]uint{10, 10, 14, 18}[sizes]
	if len(b) < head {
		return nil, nil, damaged("literals without a size")
	}
	var v uint64
	for i := range head {
		v |= uint64(b[i]) << (8 * i)
	}
	v >>= 4
	n, stored := int(v&(1<<width-1)), int(v>>width)
	b = b[head:]
	if n == 0 && sizes != 0 {
		return nil, nil, damaged("four streams of no literals")
	}
	if n > limit || len(b) < stored { // none in one stream is what the table alone is sent with
		return nil, nil, damaged("literals that are cut off")
	}
	in, rest := b[:stored], b[stored:]
	if again && !d.usable {
		return nil, nil, damaged("literals by a table that was not given")
	}
	if !again {
		d.usable = false
		if d.huff, in, err = huff0.ReadTable(in, d.huff); err != nil {
			return nil, nil, damaged("the literals' table: %v", err)
		}
		d.usable = true
	}
	dst := d.lits[:0:n]
	if sizes == 0 {
		lits, err = d.huff.Decoder().Decompress1X(dst, in)
	} else {
		lits, err = d.huff.Decoder().Decompress4X(dst, in)
	}
	if err != nil || len(lits) != n {
		return nil, nil, damaged("the literals: %v", err)
	}
	return lits, rest, nil
}
