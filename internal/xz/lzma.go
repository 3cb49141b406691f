package xz

import (
	"github.com/plyfs/plyfs/internal/spill"
)

const (
	states    = 12 // what the last symbols were
	posStates = 16 // of the position's lowest bits
	// afterLiteral is the first state in which the last symbol was no literal.
	afterLiteral = 7

	maxLiteral  = 1 << 4 // coders of literals: lc + lp is 4 at the most
	literalSize = 0x400  // of which 0x300 are used: an index in ten bits

	minMatch   = 2
	lenStates  = 4   // distances have other probabilities by their match's length
	alignBits  = 4   // the lowest bits of a far distance
	specialLen = 115 // probabilities of the bits of distances up to 127
)

// lengths is the probabilities of a kind of matches' lengths.
type lengths struct {
	choice, choice2 prob
	low, mid        [posStates][8]prob
	high            [256]prob
}

// decoder is an LZMA decoder (the LZMA specification). What is in it stays from a
// chunk to the next.
type decoder struct {
	lc, lpMask, pbMask uint32

	rc    rangeDecoder
	state uint32
	reps  [4]uint32 // the last distances, less one

	isMatch, isRep0Long              [states * posStates]prob
	isRep, isRepG0, isRepG1, isRepG2 [states]prob
	slots                            [lenStates][64]prob
	special                          [specialLen]prob
	align                            [1 << alignBits]prob
	matchLen, repLen                 lengths
	literal                          [maxLiteral][literalSize]prob
}

// setProperties takes the byte of lc, lp and pb.
func (d *decoder) setProperties(b byte) error {
	if b >= 9*5*5 {
		return damaged("the properties of LZMA are none: %#02x", b)
	}
	lc, lp, pb := uint32(b%9), uint32(b/9%5), b/45
	if lc+lp > 4 {
		return damaged("LZMA with lc %d and lp %d, which are 4 together at the most", lc, lp)
	}
	d.lc, d.lpMask, d.pbMask = lc, 1<<lp-1, 1<<pb-1
	return nil
}

// reset makes the state that of a beginning.
func (d *decoder) reset() {
	d.state, d.reps = 0, [4]uint32{}
	for _, p := range [...][]prob{
		d.isMatch[:], d.isRep0Long[:], d.isRep[:], d.isRepG0[:], d.isRepG1[:], d.isRepG2[:],
		d.slots[0][:], d.slots[1][:], d.slots[2][:], d.slots[3][:], d.special[:], d.align[:],
	} {
		half(p)
	}
	for i := range d.literal {
		half(d.literal[i][:])
	}
	d.matchLen.reset()
	d.repLen.reset()
}

func (l *lengths) reset() {
	l.choice, l.choice2 = probHalf, probHalf
	for i := range l.low {
		half(l.low[i][:])
		half(l.mid[i][:])
	}
	half(l.high[:])
}

func half(p []prob) {
	for i := range p {
		p[i] = probHalf
	}
}

// decode adds what in stands for, which must be n bytes, to w, which has room for
// them and looks back dict bytes; behind in are inputSlack bytes that are not its
// own.
func (d *decoder) decode(w *spill.Window, dict int64, in []byte, n int) error {
	if len(in) < rangeHead+inputSlack {
		return damaged("a chunk of %d bytes", len(in)-inputSlack)
	}
	if err := d.rc.start(in); err != nil {
		return err
	}
	o := output{w: w, at: len(w.Memory())}
	o.b = w.Memory()[:o.at+n]
	for {
		match, err := d.literals(&o)
		if err != nil {
			return err
		}
		if !match {
			break
		}
		length := d.match(uint32(o.at) & d.pbMask)
		if d.rc.over() {
			return damaged("a chunk that is cut off")
		}
		if length > len(o.b)-o.at {
			return damaged("a match over the end of its chunk")
		}
		if err := o.repeat(int64(d.reps[0])+1, length, dict); err != nil {
			return err
		}
	}
	o.sync()
	if !d.rc.ended() {
		return damaged("a chunk that does not end with its content")
	}
	return nil
}

// output is where a chunk's content goes: a window whose memory is written to here,
// and is told of that later.
type output struct {
	w  *spill.Window
	b  []byte // of the window's memory, with room for what the chunk has yet
	at int    // where the next byte goes
}

// sync tells the window of what has been written.
func (o *output) sync() { o.w.Grow(o.at - len(o.w.Memory())) }

// repeat adds n bytes, for which there is room, each the one that is off before it,
// if there are so many and no more than dict.
func (o *output) repeat(off int64, n int, dict int64) error {
	if off > int64(o.at) {
		o.sync()
		if off > o.w.Len() {
			return damaged("a match that looks back %d bytes of %d", off, o.w.Len())
		}
		o.at += n
		return o.w.Repeat(off, n)
	}
	if off > dict {
		return damaged("a match that looks back %d bytes, of a dictionary of %d", off, dict)
	}
	dst, src := o.b[o.at:o.at+n], o.b[o.at-int(off):o.at]
	o.at += n
	if len(src) >= n {
		copy(dst, src)
		return nil
	}
	for i := range dst { // what has been repeated is repeated
		dst[i] = o.b[o.at-n+i-int(off)]
	}
	return nil
}

// byte is the one off bytes before the next; there are so many.
func (o *output) byte(off int64) (byte, error) {
	if off <= int64(o.at) {
		return o.b[o.at-int(off)], nil
	}
	o.sync()
	return o.w.Byte(off)
}

// literals decodes literals up to the end of o, or up to a match, of which it takes
// the first bit.
func (d *decoder) literals(o *output) (match bool, err error) {
	rc, out := &d.rc, o.b
	last := byte(0)
	if o.at > 0 {
		last = out[o.at-1]
	}
	for o.at < len(out) && !rc.over() {
		if rc.bit(&d.isMatch[d.state*posStates+uint32(o.at)&d.pbMask]) != 0 {
			match = true
			break
		}
		probs := d.coder(o.at, last)
		if d.state < afterLiteral {
			last = byte(rc.tree(probs[:], 8))
		} else if last, err = d.afterMatch(o, probs); err != nil {
			return false, err
		}
		out[o.at] = last
		o.at++
		d.state = stateAfterLiteral(d.state)
	}
	if rc.over() {
		return false, damaged("a chunk that is cut off")
	}
	return match, nil
}

// coder is the probabilities of a literal at a place behind the byte last.
func (d *decoder) coder(at int, last byte) *[literalSize]prob {
	i := (uint32(at)&d.lpMask)<<d.lc + uint32(last)>>(8-d.lc)
	return &d.literal[i%maxLiteral]
}

func stateAfterLiteral(state uint32) uint32 {
	if state < 10 {
		return max(state, 3) - 3
	}
	return state - 6
}

// afterMatch decodes a literal after a match: its first bits, as long as they are
// those of the byte that would have gone on with the match, have probabilities of
// their own.
func (d *decoder) afterMatch(o *output, probs *[literalSize]prob) (byte, error) {
	b, err := o.byte(int64(d.reps[0]) + 1)
	if err != nil {
		return 0, err
	}
	rc := &d.rc
	rng, code, next, in := rc.rng, rc.code, rc.at, rc.in
	sym, match, offset := uint32(1), uint32(b), uint32(0x100)
	for sym < 0x100 {
		match <<= 1
		bit := match & offset
		p := &probs[(offset+bit+sym)%1024]
		v := uint32(*p)
		bound := rng >> probBits * v
		if code < bound {
			rng, sym = bound, sym<<1
			offset &^= bit
			*p = prob(v + (1<<probBits-v)>>moveBits)
		} else {
			rng, code, sym = rng-bound, code-bound, sym<<1|1
			offset &= bit
			*p = prob(v - v>>moveBits)
		}
		if rng < top {
			rng, code = rng<<8, code<<8|uint32(in[next])
			next++
		}
	}
	rc.rng, rc.code, rc.at = rng, code, next
	return byte(sym), nil
}

// match decodes a match after its first bit: the distance goes to reps[0], and the
// length is returned.
func (d *decoder) match(posState uint32) int {
	rc, state := &d.rc, d.state
	if rc.bit(&d.isRep[state]) == 0 {
		d.state = after(state, 7)
		d.reps[3], d.reps[2], d.reps[1] = d.reps[2], d.reps[1], d.reps[0]
		n := rc.length(&d.matchLen, posState)
		d.reps[0] = d.distance(min(n-minMatch, lenStates-1))
		return n
	}
	switch {
	case rc.bit(&d.isRepG0[state]) == 0:
		if rc.bit(&d.isRep0Long[state*posStates+posState]) == 0 {
			d.state = after(state, 9)
			return 1
		}
	case rc.bit(&d.isRepG1[state]) == 0:
		d.reps[1], d.reps[0] = d.reps[0], d.reps[1]
	case rc.bit(&d.isRepG2[state]) == 0:
		d.reps[2], d.reps[1], d.reps[0] = d.reps[1], d.reps[0], d.reps[2]
	default:
		d.reps = [4]uint32{d.reps[3], d.reps[0], d.reps[1], d.reps[2]}
	}
	d.state = after(state, 8)
	return rc.length(&d.repLen, posState)
}

// after is the state after a symbol that leads to next from where the last one was
// a literal.
func after(state, next uint32) uint32 {
	if state < afterLiteral {
		return next
	}
	if next == 7 {
		return 10
	}
	return 11
}

// length reads the length of a match.
func (r *rangeDecoder) length(l *lengths, posState uint32) int {
	if r.bit(&l.choice) == 0 {
		return minMatch - 8 + int(r.tree(l.low[posState][:], 3))
	}
	if r.bit(&l.choice2) == 0 {
		return minMatch + int(r.tree(l.mid[posState][:], 3))
	}
	return minMatch + 16 - 256 + int(r.tree(l.high[:], 8))
}

// distance reads a distance less one: a slot, which says its highest two bits and
// how many follow, and those.
func (d *decoder) distance(lenState int) uint32 {
	slot := d.rc.tree(d.slots[lenState][:], 6) - 64
	if slot < 4 {
		return slot
	}
	n := int(slot>>1 - 1)
	dist := (2 | slot&1) << n
	if slot < 14 {
		return dist + d.rc.reverse(d.special[dist-slot:], n)
	}
	dist += d.rc.direct(n-alignBits) << alignBits
	return dist + d.rc.reverse(d.align[:], alignBits)
}
