package xz

import (
	"errors"

	"github.com/plyfs/plyfs/internal/spill"
)

const (
	// maxPacked and maxPlain are the most that a chunk has, compressed and not.
	maxPacked = 1 << 16
	maxPlain  = 1 << 21
)

// errLastChunk tells that a block's data has ended.
var errLastChunk = errors.New("no chunk follows")

// lzma2 decodes the chunks of a block. Each begins with a byte:
//
//	0x00        the end
//	0x01, 0x02  content as it is, up to 64 KiB; 0x01 empties the dictionary before
//	0x80-0xff   LZMA, up to 64 KiB that stand for up to 2 MiB. Bits 5 and 6: 0 goes
//	            on; 1 with a fresh state; 2 with new properties, too; 3 and with an
//	            empty dictionary. Bits 0 to 4 are the highest of the content's size
//
// then the content's size less one, two bytes, the highest first, and for LZMA that
// of what it is packed in, and the properties if they are new. The first chunk
// empties the dictionary; the first of LZMA after that has properties.
type lzma2 struct {
	dict               int64
	wantDict, wantProp bool // the next chunk must begin with them
	packed             []byte
	lzma               decoder
}

// begin starts a block with a dictionary of dict bytes, which is empty.
func (d *lzma2) begin(dict int64) { d.dict, d.wantDict, d.wantProp = dict, true, true }

// source is where chunks come from.
type source interface {
	// take fills b.
	take(b []byte) error
}

// next decodes a chunk to w's end and returns its size. errLastChunk if there is
// none.
func (d *lzma2) next(in source, w *spill.Window) (int, error) {
	var head [6]byte
	if err := in.take(head[:1]); err != nil {
		return 0, err
	}
	control := head[0]
	packed := control >= 0x80
	switch {
	case control == 0:
		return 0, errLastChunk
	case control > 2 && !packed:
		return 0, damaged("a chunk of a kind that is none: %#02x", control)
	case control == 1 || control >= 0xe0:
		if !d.wantDict {
			if err := w.Reset(d.dict); err != nil {
				return 0, err
			}
		}
		d.wantDict, d.wantProp = false, true
	case d.wantDict:
		return 0, damaged("a block does not begin with an empty dictionary")
	}
	n := 2
	if packed {
		n = 4
	}
	if control >= 0xc0 {
		n = 5
	}
	if err := in.take(head[1 : 1+n]); err != nil {
		return 0, err
	}
	size := int(head[1])<<8 + int(head[2]) + 1
	if !packed {
		return size, d.stored(in, w, size)
	}
	size += int(control&0x1f) << 16
	if err := d.reset(control, head[5]); err != nil {
		return 0, err
	}
	return size, d.symbols(in, w, int(head[3])<<8+int(head[4])+1, size)
}

// stored takes a chunk of n bytes of content as it is.
func (d *lzma2) stored(in source, w *spill.Window, n int) error {
	if err := w.Room(n); err != nil {
		return err
	}
	b := w.Memory()
	if err := in.take(b[len(b) : len(b)+n]); err != nil {
		return err
	}
	w.Grow(n)
	return nil
}

// reset does what a chunk of LZMA begins with.
func (d *lzma2) reset(control, properties byte) error {
	switch {
	case control >= 0xc0:
		if err := d.lzma.setProperties(properties); err != nil {
			return err
		}
		d.wantProp = false
	case d.wantProp:
		return damaged("the first chunk of LZMA has no properties")
	}
	if control >= 0xa0 {
		d.lzma.reset()
	}
	return nil
}

// symbols decodes a chunk of LZMA, packed bytes that stand for plain ones.
func (d *lzma2) symbols(in source, w *spill.Window, packed, plain int) error {
	if d.packed == nil {
		d.packed = make([]byte, maxPacked+inputSlack)
	}
	b := d.packed[:packed+inputSlack]
	if err := in.take(b[:packed]); err != nil {
		return err
	}
	clear(b[packed:])
	if err := w.Room(plain); err != nil {
		return err
	}
	return d.lzma.decode(w, d.dict, b, plain)
}
