package longzstd

import (
	"encoding/binary"
	"math/bits"
)

// The primes of XXH64 (doc/xxhash_spec.md of github.com/Cyan4973/xxHash).
const (
	prime1 = 0x9e3779b185ebca87
	prime2 = 0xc2b2ae3d27d4eb4f
	prime3 = 0x165667b19e3779f9
	prime4 = 0x85ebca77c2b2ae63
	prime5 = 0x27d4eb2f165667c5
)

// digest is XXH64 with the seed 0.
type digest struct {
	lanes [4]uint64
	total uint64
	mem   [32]byte
	n     int // bytes in mem
}

func newDigest() digest {
	var p1, p2 uint64 = prime1, prime2
	return digest{lanes: [4]uint64{p1 + p2, p2, 0, -p1}}
}

func round(lane, in uint64) uint64 { return bits.RotateLeft64(lane+in*prime2, 31) * prime1 }

func (d *digest) write(b []byte) {
	d.total += uint64(len(b))
	if d.n > 0 {
		n := copy(d.mem[d.n:], b)
		if d.n += n; d.n < len(d.mem) {
			return
		}
		b = b[n:]
		d.stripes(d.mem[:])
		d.n = 0
	}
	whole := len(b) &^ 31
	d.stripes(b[:whole])
	d.n = copy(d.mem[:], b[whole:])
}

func (d *digest) stripes(b []byte) {
	v0, v1, v2, v3 := d.lanes[0], d.lanes[1], d.lanes[2], d.lanes[3]
	for ; len(b) >= 32; b = b[32:] {
		v0 = round(v0, binary.LittleEndian.Uint64(b))
		v1 = round(v1, binary.LittleEndian.Uint64(b[8:]))
		v2 = round(v2, binary.LittleEndian.Uint64(b[16:]))
		v3 = round(v3, binary.LittleEndian.Uint64(b[24:]))
	}
	d.lanes = [4]uint64{v0, v1, v2, v3}
}

func (d *digest) sum() uint64 {
	h := d.lanes[2] + prime5
	if d.total >= 32 {
		h = bits.RotateLeft64(d.lanes[0], 1) + bits.RotateLeft64(d.lanes[1], 7) + bits.RotateLeft64(d.lanes[2], 12) + bits.RotateLeft64(d.lanes[3], 18)
		for _, v := range d.lanes {
			h = (h^round(0, v))*prime1 + prime4
		}
	}
	h += d.total
	b := d.mem[:d.n]
	for ; len(b) >= 8; b = b[8:] {
		h = bits.RotateLeft64(h^round(0, binary.LittleEndian.Uint64(b)), 27)*prime1 + prime4
	}
	if len(b) >= 4 {
		h = bits.RotateLeft64(h^uint64(binary.LittleEndian.Uint32(b))*prime1, 23)*prime2 + prime3
		b = b[4:]
	}
	for _, c := range b {
		h = bits.RotateLeft64(h^uint64(c)*prime5, 11) * prime1
	}
	h = (h ^ h>>33) * prime2
	h = (h ^ h>>29) * prime3
	return h ^ h>>32
}
