package longzstd

import (
	"encoding/binary"
	"math/bits"
)

// bitReader reads a stream of bits from its end (RFC 8878, 4.1).
type bitReader struct {
	in   []byte // what is not in v yet
	v    uint64 // the last 64-used bits of it are next
	used uint   // above 64 when more was read than there is
}

// start begins with b, whose last byte's highest bit is the mark of its end.
func (r *bitReader) start(b []byte) error {
	if len(b) == 0 || b[len(b)-1] == 0 {
		return damaged("a stream of bits without its end mark")
	}
	*r = bitReader{in: b, used: 64}
	r.fill()
	r.used += 9 - uint(bits.Len8(b[len(b)-1]))
	return nil
}

// fill makes at least 33 bits ready, if there are so many.
func (r *bitReader) fill() {
	if len(r.in) >= 8 && r.used == 64 {
		r.v, r.used = binary.LittleEndian.Uint64(r.in[len(r.in)-8:]), 0
		r.in = r.in[:len(r.in)-8]
		return
	}
	for r.used >= 32 && len(r.in) >= 4 {
		r.v = r.v<<32 | uint64(binary.LittleEndian.Uint32(r.in[len(r.in)-4:]))
		r.in, r.used = r.in[:len(r.in)-4], r.used-32
	}
	for r.used >= 32 && len(r.in) > 0 {
		r.v = r.v<<8 | uint64(r.in[len(r.in)-1])
		r.in, r.used = r.in[:len(r.in)-1], r.used-8
	}
}

// get takes n bits (at most 32) that fill has made ready; zeros beyond the end.
func (r *bitReader) get(n uint8) uint32 {
	out := r.v << r.used >> (64 - n)
	r.used += uint(n)
	return uint32(out)
}

// over tells whether more has been taken than there was.
func (r *bitReader) over() bool { return r.used > 64 }

// ended tells whether everything has been taken, and no more.
func (r *bitReader) ended() bool { return r.used == 64 && len(r.in) == 0 }
