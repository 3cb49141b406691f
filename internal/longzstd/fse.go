package longzstd

import "math/bits"

// code is what a symbol stands for: base plus the value of extra bits.
type code struct {
	base  uint32
	extra uint8
}

// state is one of a table: the symbol's code, and how the next state is made.
type state struct {
	code
	bits uint8
	next uint16
}

// table decodes one kind of symbols (RFC 8878, 4.1.1).
type table struct {
	log    uint8
	states []state
}

// kind is one of the three kinds of symbols of a sequence.
type kind struct {
	maxLog     uint8
	symbols    int
	code       func(symbol int) code
	log        uint8   // of usual
	usual      []int16 // the distribution that is used without a table
	name       string
	modeOffset uint // of the mode's bits in the byte of modes
}

func litLengths() kind {
	return kind{
		maxLog: 9, symbols: 36, log: 6, name: "literal lengths", modeOffset: 6,
		code: func(s int) code {
			if s < 16 {
				return code{uint32(s), 0}
			}
			return spread(16, s-16, []uint8{1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
		},
		usual: []int16{
			4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2,
			2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1,
		},
	}
}

func matchLengths() kind {
	return kind{
		maxLog: 9, symbols: 53, log: 6, name: "match lengths", modeOffset: 2,
		code: func(s int) code {
			if s < 32 {
				return code{uint32(s) + 3, 0}
			}
			return spread(35, s-32, []uint8{1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
		},
		usual: []int16{
			1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
			1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
		},
	}
}

func offsets() kind {
	return kind{
		maxLog: 8, symbols: 32, log: 5, name: "offsets", modeOffset: 4,
		code:  func(s int) code { return code{1 << s, uint8(s)} },
		usual: []int16{1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1},
	}
}

// spread is the code of the i-th symbol after those that stand for themselves;
// each begins where the one before it ends.
func spread(base uint32, i int, extra []uint8) code {
	for _, n := range extra[:i] {
		base += 1 << n
	}
	return code{base, extra[i]}
}

// build makes the table of a distribution (RFC 8878, 4.1.1).
func (t *table) build(k *kind, log uint8, counts []int16) error {
	size := 1 << log
	t.log = log
	if cap(t.states) < size {
		t.states = make([]state, 1<<k.maxLog)
	}
	t.states = t.states[:size]
	var symbols [1 << 9]uint8
	var next [64]uint16
	high := size - 1
	for s, n := range counts {
		next[s] = uint16(n)
		if n == -1 {
			symbols[high], next[s] = uint8(s), 1
			high--
		}
	}
	at, step := 0, size>>1+size>>3+3
	for s, n := range counts {
		for range n { // none for -1
			symbols[at] = uint8(s)
			for at = (at + step) & (size - 1); at > high; at = (at + step) & (size - 1) {
			}
		}
	}
	if at != 0 {
		return damaged("a distribution of %s that does not fit", k.name)
	}
	for i := range t.states {
		s := symbols[i]
		n := next[s]
		next[s]++
		b := log - uint8(bits.Len16(n)-1)
		t.states[i] = state{code: k.code(int(s)), bits: b, next: n<<b - uint16(size)}
	}
	return nil
}

// single makes the table that always gives symbol s.
func (t *table) single(k *kind, s int) error {
	if s >= k.symbols {
		return damaged("a symbol %d of %s", s, k.name)
	}
	t.log, t.states = 0, append(t.states[:0], state{code: k.code(s)})
	return nil
}

// read makes the table that b begins with, and returns what follows it.
func (t *table) read(k *kind, b []byte) ([]byte, error) {
	in := forward{b: b}
	log := uint8(in.get(4)) + 5
	if log > k.maxLog {
		return nil, damaged("a table of %s of %d bits", k.name, log)
	}
	var counts [64]int16
	n, left := 0, 1<<log // of symbols, and of probability
	for left > 0 {
		if n >= k.symbols || in.over() {
			return nil, damaged("a table of %s that does not end", k.name)
		}
		c := in.below(left+2) - 1
		counts[n] = int16(c)
		n++
		left -= max(c, -c)
		for c == 0 {
			zeros := int(in.get(2))
			if n += zeros; n > k.symbols {
				return nil, damaged("a table of %s with too many symbols", k.name)
			}
			if zeros < 3 {
				break
			}
		}
	}
	rest, ok := in.rest()
	if !ok {
		return nil, damaged("a table of %s that is cut off", k.name)
	}
	return rest, t.build(k, log, counts[:n])
}

// forward reads bits from the beginning.
type forward struct {
	b  []byte
	at uint // bits
}

// peek is the next n bits (at most 16), with zeros beyond the end.
func (f *forward) peek(n uint) uint {
	var v uint
	for i, from := uint(0), f.at/8; i < 3 && from+i < uint(len(f.b)); i++ {
		v |= uint(f.b[from+i]) << (8 * i)
	}
	return v >> (f.at % 8) & (1<<n - 1)
}

func (f *forward) get(n uint) uint {
	v := f.peek(n)
	f.at += n
	return v
}

// below takes a value that is less than limit: the smaller ones have a bit less.
func (f *forward) below(limit int) int {
	n := uint(bits.Len(uint(limit - 1)))
	short := uint(1)<<n - uint(limit) // values that have a bit less
	if v := f.peek(n - 1); v < short {
		f.at += n - 1
		return int(v)
	}
	v := f.get(n)
	if v >= 1<<(n-1) {
		v -= short
	}
	return int(v)
}

func (f *forward) over() bool { return f.at > 8*uint(len(f.b)) }

// rest is what follows the byte that was read last.
func (f *forward) rest() ([]byte, bool) {
	if f.over() {
		return nil, false
	}
	return f.b[(f.at+7)/8:], true
}
