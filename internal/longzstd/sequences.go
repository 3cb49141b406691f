package longzstd

import "github.com/plyfs/plyfs/internal/spill"

// sequenceHead reads the number of sequences and their tables, and returns the
// bits that follow.
func (d *decoder) sequenceHead(b []byte) (count int, rest []byte, err error) {
	if len(b) == 0 {
		return 0, nil, damaged("a block without sequences")
	}
	switch count, b = int(b[0]), b[1:]; {
	case count == 255 && len(b) >= 2:
		count, b = int(b[0])|int(b[1])<<8+0x7f00, b[2:]
	case count >= 128 && count < 255 && len(b) >= 1:
		count, b = (count-128)<<8+int(b[0]), b[1:]
	case count >= 128:
		return 0, nil, damaged("sequences without a number")
	}
	if count == 0 { // also one of two bytes: RFC 8878, 3.1.1.3.2.1 ends the block here
		if len(b) > 0 {
			return 0, nil, damaged("bytes after a block's literals")
		}
		return 0, nil, nil
	}
	if len(b) == 0 || b[0]&3 != 0 {
		return 0, nil, damaged("sequences without modes")
	}
	modes := b[0]
	b = b[1:]
	for _, s := range [...]*source{&d.lengths, &d.offs, &d.matches} {
		if b, err = s.choose(modes>>s.modeOffset&3, b); err != nil {
			return 0, nil, err
		}
	}
	return count, b, nil
}

// choose sets the table of a block's mode, which b may begin with.
func (s *source) choose(mode byte, b []byte) (rest []byte, err error) {
	usable := s.usable
	s.usable = false
	switch mode {
	case 0:
		err = s.build(&s.kind, s.kind.log, s.usual)
	case 1:
		if len(b) == 0 {
			return nil, damaged("%s without a symbol", s.name)
		}
		err = s.single(&s.kind, int(b[0]))
		b = b[1:]
	case 2:
		b, err = s.read(&s.kind, b)
	case 3:
		if !usable {
			err = damaged("%s by a table that was not given", s.name)
		}
	}
	s.usable = err == nil
	return b, err
}

// sequences executes count sequences of the bits in b, with their literals, and
// returns the size of what they make.
func (d *decoder) sequences(w *spill.Window, lits, b []byte, count, limit int) (n int, err error) {
	var in bitReader
	if err := in.start(b); err != nil {
		return 0, err
	}
	in.fill()
	ll, of, ml := in.get(d.lengths.table.log), in.get(d.offs.table.log), in.get(d.matches.table.log)
	for i := range count {
		in.fill()
		l, o, m := d.lengths.states[ll], d.offs.states[of], d.matches.states[ml]
		off := int64(o.base) + int64(in.get(o.extra))
		in.fill()
		match, length := int(m.base+in.get(m.extra)), int(l.base+in.get(l.extra))
		if i < count-1 {
			in.fill()
			ll = uint32(l.next) + in.get(l.bits)
			ml = uint32(m.next) + in.get(m.bits)
			of = uint32(o.next) + in.get(o.bits)
		}
		if in.over() {
			return 0, damaged("sequences that are cut off")
		}
		off = d.offset(off, length == 0)
		if length > len(lits) || n+length+match > limit {
			return 0, damaged("a sequence that is longer than its block")
		}
		w.Append(lits[:length])
		lits = lits[length:]
		if off < 1 || off > w.Len() {
			return 0, damaged("a sequence that looks back %d bytes of %d", off, w.Len())
		}
		if err := w.Repeat(off, match); err != nil {
			return 0, err
		}
		n += length + match
	}
	if !in.ended() {
		return 0, damaged("bits after the last sequence")
	}
	if n += len(lits); n > limit {
		return 0, damaged("a block that is longer than the limit")
	}
	w.Append(lits)
	return n, nil
}

// offset is what a sequence's value of offset stands for (RFC 8878, 3.1.1.5): a
// number, or one of the last three, of which bare, no literals before it, takes
// the next one.
func (d *decoder) offset(v int64, bare bool) int64 {
	r := &d.repeats
	if v > 3 {
		*r = [3]int64{v - 3, r[0], r[1]}
		return v - 3
	}
	if bare {
		v++
	}
	switch v {
	case 1:
	case 2:
		r[0], r[1] = r[1], r[0]
	case 3:
		*r = [3]int64{r[2], r[0], r[1]}
	case 4:
		*r = [3]int64{r[0] - 1, r[0], r[1]}
	}
	return r[0]
}
