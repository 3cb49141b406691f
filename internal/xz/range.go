package xz

// prob is the probability of a zero bit, in 2048ths (the LZMA specification, "Range
// Decoder").
type prob = uint16

const (
	probBits = 11
	probHalf = 1 << (probBits - 1)
	moveBits = 5
	top      = 1 << 24

	// rangeHead is how many bytes a range coder's stream begins with: a zero and
	// the first code.
	rangeHead = 5
	// inputSlack is more than the bytes that one symbol takes, at which it is looked
	// whether the input was at its end: zeros that stand behind it.
	inputSlack = 32
)

// rangeDecoder reads bits.
type rangeDecoder struct {
	in   []byte // with inputSlack behind its end
	at   int    // the next byte of in
	rng  uint32 // at least top between bits
	code uint32 // less than rng
}

// start begins with in, which has rangeHead bytes and inputSlack at least.
func (r *rangeDecoder) start(in []byte) error {
	if in[0] != 0 {
		return damaged("a chunk's first byte is not zero")
	}
	code := uint32(in[1])<<24 | uint32(in[2])<<16 | uint32(in[3])<<8 | uint32(in[4])
	*r = rangeDecoder{in: in, at: rangeHead, rng: 1<<32 - 1, code: code}
	return nil
}

// over tells whether more has been taken than there was.
func (r *rangeDecoder) over() bool { return r.at > len(r.in)-inputSlack }

// ended tells whether everything has been taken, and no more, and the decoder
// stands where an encoder ends.
func (r *rangeDecoder) ended() bool { return r.at == len(r.in)-inputSlack && r.code == 0 }

// bit reads a bit of probability p, which learns.
func (r *rangeDecoder) bit(p *prob) uint32 {
	rng, code, v := r.rng, r.code, uint32(*p)
	bound := rng >> probBits * v
	var bit uint32
	if code < bound {
		rng = bound
		*p = prob(v + (1<<probBits-v)>>moveBits)
	} else {
		rng, code, bit = rng-bound, code-bound, 1
		*p = prob(v - v>>moveBits)
	}
	if rng < top {
		rng, code = rng<<8, code<<8|uint32(r.in[r.at])
		r.at++
	}
	r.rng, r.code = rng, code
	return bit
}

// tree reads n bits, the highest first, each by the probability of those before it.
// The result has a one before them.
func (r *rangeDecoder) tree(probs []prob, n int) uint32 {
	rng, code, at, in := r.rng, r.code, r.at, r.in
	sym := uint32(1)
	for range n {
		p := &probs[sym]
		v := uint32(*p)
		bound := rng >> probBits * v
		if code < bound {
			rng, sym = bound, sym<<1
			*p = prob(v + (1<<probBits-v)>>moveBits)
		} else {
			rng, code, sym = rng-bound, code-bound, sym<<1|1
			*p = prob(v - v>>moveBits)
		}
		if rng < top {
			rng, code = rng<<8, code<<8|uint32(in[at])
			at++
		}
	}
	r.rng, r.code, r.at = rng, code, at
	return sym
}

// reverse reads n bits, the lowest first.
func (r *rangeDecoder) reverse(probs []prob, n int) uint32 {
	var out uint32
	sym := uint32(1)
	for i := range n {
		b := r.bit(&probs[sym])
		sym = sym<<1 | b
		out |= b << i
	}
	return out
}

// direct reads n bits without probabilities, the highest first.
func (r *rangeDecoder) direct(n int) uint32 {
	rng, code := r.rng, r.code
	var out uint32
	for range n {
		rng >>= 1
		code -= rng
		mask := -(code >> 31) // all ones for a zero bit
		code += rng & mask
		out = out<<1 + mask + 1
		if rng < top {
			rng, code = rng<<8, code<<8|uint32(r.in[r.at])
			r.at++
		}
	}
	r.rng, r.code = rng, code
	return out
}
