package layertar

import (
	"encoding/binary"
	"hash/crc64"
)

// The record's checksums are CRC-64/ISO (ISO 3309): the polynomial is
// x⁶⁴+x⁴+x³+x+1, the register is reflected and starts and ends inverted.
//
// The polynomial has few terms, all of them low, so that x⁶⁴ ≡ x⁴+x³+x+1: to
// multiply a register by x⁶⁴, which is what eight bytes of input do, takes
// shifts and no table. Squaring doubles exponents: x¹²⁸ ≡ x⁸+x⁶+x²+1 and
// x²⁵⁶ ≡ x¹⁶+x¹²+x⁴+1. In the reflected register multiplying by xᵏ is a shift
// to the right by k, and the bits shifted out are the terms from x⁶⁴ on, which
// are folded in again in the same way.

// fold64 multiplies by x⁶⁴ modulo the polynomial.
func fold64(a uint64) uint64 {
	a ^= a<<63 ^ a<<61 ^ a<<60
	return a ^ a>>1 ^ a>>3 ^ a>>4
}

// fold128 multiplies by x¹²⁸.
func fold128(a uint64) uint64 {
	over := a<<62 ^ a<<58 ^ a<<56
	return a ^ a>>2 ^ a>>6 ^ a>>8 ^ over ^ over>>1 ^ over>>3 ^ over>>4
}

// fold256 multiplies by x²⁵⁶.
func fold256(a uint64) uint64 {
	over := a<<60 ^ a<<52 ^ a<<48
	return a ^ a>>4 ^ a>>12 ^ a>>16 ^ over ^ over>>1 ^ over>>3 ^ over>>4
}

// crcUpdate is crc64.Update with the ISO table, several times as fast.
func crcUpdate(crc uint64, b []byte) uint64 {
	crc = ^crc
	for len(b) >= 32 {
		w0, w1 := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		w2, w3 := binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])
		crc = fold256(crc^w0) ^ fold128(fold64(w1)^w2) ^ fold64(w3)
		b = b[32:]
	}
	for len(b) >= 8 {
		crc = fold64(crc ^ binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	return crc64.Update(^crc, crcTable(), b)
}

// crcTable is for what is shorter than a register.
func crcTable() *crc64.Table { return crc64.MakeTable(crc64.ISO) }

// crcJoin returns the checksum of two runs of bytes from those of each, the
// second n bytes long.
func crcJoin(first, second uint64, n int64) uint64 {
	const x8 = 1 << 55 // x⁸ in the reflected register
	if first == 0 {
		return second
	}
	return crcTimes(first, crcPower(x8, n)) ^ second
}

// crcPower is base to the power n.
func crcPower(base uint64, n int64) uint64 {
	out := uint64(1 << 63) // 1
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			out = crcTimes(out, base)
		}
		base = crcTimes(base, base)
	}
	return out
}

// crcTimes multiplies two polynomials modulo the CRC's.
func crcTimes(a, b uint64) uint64 {
	var out uint64
	for ; b != 0; b <<= 1 {
		if b>>63 == 1 {
			out ^= a
		}
		low := a & 1
		a >>= 1
		if low == 1 {
			a ^= crc64.ISO
		}
	}
	return out
}
