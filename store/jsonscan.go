package store

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// jsonDepth bounds nesting, as encoding/json bounds it.
const jsonDepth = 10000

// scanner walks JSON text (RFC 8259) without copying it: what it returns are
// parts of the text. It accepts exactly what encoding/json accepts.
type scanner struct {
	s string
	i int
	// seen is of the records before; nil where there is one record only.
	seen *seen
	// dec decodes the record that is being walked.
	dec decoder
}

// syntaxError says at which byte of its text a scanner gave up.
type syntaxError struct {
	at  int
	why string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.why, e.at) }

func (p *scanner) fail(why string) error {
	if p.i >= len(p.s) {
		why = "the text ends too early"
	}
	return &syntaxError{p.i, why}
}

func (p *scanner) space() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\r', '\n':
			p.i++
		default:
			return
		}
	}
}

// peek returns the next byte that is not white space, 0 at the end.
func (p *scanner) peek() byte {
	p.space()
	if p.i == len(p.s) {
		return 0
	}
	return p.s[p.i]
}

// eat skips white space and the byte c, if it comes next.
func (p *scanner) eat(c byte) bool {
	if p.peek() != c || p.i == len(p.s) {
		return false
	}
	p.i++
	return true
}

// value returns the text of the next value.
func (p *scanner) value(depth int) (string, error) {
	c := p.peek()
	start := p.i
	var err error
	switch {
	case depth > jsonDepth:
		err = p.fail("nested too deeply")
	case c == '{':
		err = p.object(depth, func(string, string) error { return nil })
	case c == '[':
		err = p.array(depth, func(string) error { return nil })
	case c == '"':
		_, err = p.quoted()
	case c == '-', c >= '0' && c <= '9':
		err = p.number()
	default:
		err = p.literal()
	}
	return p.s[start:p.i], err
}

// object walks the members of an object: the key's text with its quotes, and
// the value's text.
func (p *scanner) object(depth int, member func(key, value string) error) error {
	if !p.eat('{') {
		return p.fail("no object")
	}
	if p.eat('}') {
		return nil
	}
	for {
		if p.peek() != '"' {
			return p.fail("no member name")
		}
		key, err := p.quoted()
		if err != nil {
			return err
		}
		if !p.eat(':') {
			return p.fail("no colon")
		}
		val, err := p.value(depth + 1)
		if err != nil {
			return err
		}
		if err := member(key, val); err != nil {
			return err
		}
		if p.eat('}') {
			return nil
		}
		if !p.eat(',') {
			return p.fail("no comma or brace")
		}
	}
}

// array walks the elements of an array.
func (p *scanner) array(depth int, element func(value string) error) error {
	if !p.eat('[') {
		return p.fail("no array")
	}
	if p.eat(']') {
		return nil
	}
	for {
		val, err := p.value(depth + 1)
		if err != nil {
			return err
		}
		if err := element(val); err != nil {
			return err
		}
		if p.eat(']') {
			return nil
		}
		if !p.eat(',') {
			return p.fail("no comma or bracket")
		}
	}
}

// quoted returns the text of a string that begins here, with its quotes.
func (p *scanner) quoted() (string, error) {
	start := p.i
	p.i++
	for {
		p.i += plain(p.s[p.i:])
		if p.i == len(p.s) {
			return "", p.fail("")
		}
		switch c := p.s[p.i]; {
		case c == '"':
			p.i++
			return p.s[start:p.i], nil
		case c == '\\':
			if err := p.escape(); err != nil {
				return "", err
			}
		case c < ' ':
			return "", p.fail("control byte in a string")
		default:
			p.i++
		}
	}
}

// plain returns how many of the first bytes of s are ASCII that means itself in
// a string: no quote, no backslash, no control byte. It looks at eight at a
// time (https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord: the
// lowest byte that is marked is rightly so, and that is the one asked for).
func plain(s string) int {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	i := 0
	for ; len(s)-i >= 8; i += 8 {
		b := s[i : i+8]
		x := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
		quote, slash := x^(ones*'"'), x^(ones*'\\')
		marked := (quote - ones) &^ quote
		marked |= (slash - ones) &^ slash
		marked |= (x - ones*' ') &^ x
		if marked |= x; marked&highs != 0 {
			return i + bits.TrailingZeros64(marked&highs)/8
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			break
		}
	}
	return i
}

func (p *scanner) escape() error {
	p.i++
	if p.i == len(p.s) {
		return p.fail("")
	}
	switch p.s[p.i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		p.i++
		return nil
	case 'u':
		p.i++
		for range 4 {
			if p.i == len(p.s) || !isHex(p.s[p.i]) {
				return p.fail("bad escape")
			}
			p.i++
		}
		return nil
	}
	return p.fail("bad escape")
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func (p *scanner) digits() int {
	start := p.i
	for p.i < len(p.s) && p.s[p.i] >= '0' && p.s[p.i] <= '9' {
		p.i++
	}
	return p.i - start
}

func (p *scanner) at(set string) bool {
	if p.i == len(p.s) {
		return false
	}
	for j := range len(set) {
		if p.s[p.i] == set[j] {
			return true
		}
	}
	return false
}

func (p *scanner) number() error {
	if p.at("-") {
		p.i++
	}
	if p.at("0") {
		p.i++
	} else if p.digits() == 0 {
		return p.fail("bad number")
	}
	if p.at(".") {
		p.i++
		if p.digits() == 0 {
			return p.fail("bad number")
		}
	}
	if p.at("eE") {
		p.i++
		if p.at("+-") {
			p.i++
		}
		if p.digits() == 0 {
			return p.fail("bad number")
		}
	}
	return nil
}

func (p *scanner) literal() error {
	for _, word := range [...]string{"null", "true", "false"} {
		if len(p.s)-p.i >= len(word) && p.s[p.i:p.i+len(word)] == word {
			p.i += len(word)
			return nil
		}
	}
	return p.fail("no value")
}

// end fails when anything but white space is left.
func (p *scanner) end() error {
	if p.space(); p.i < len(p.s) {
		return p.fail("text after the end")
	}
	return nil
}

// unquote decodes a string's text. It is part of the text when nothing in it
// is escaped; bytes that are not UTF-8 become U+FFFD.
func unquote(raw string) (string, error) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", fmt.Errorf("%.20s is no string", raw)
	}
	if body := raw[1 : len(raw)-1]; plain(body) == len(body) {
		return body, nil
	}
	var s string
	err := json.Unmarshal([]byte(raw), &s)
	return s, err
}

// appendQuoted appends s as a JSON string, escaped as the peers escape it.
func appendQuoted(b []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c >= utf8.RuneSelf-1, c == '"', c == '\\', c == '<', c == '>', c == '&':
			quoted, err := json.Marshal(s)
			if err != nil { // strings always can be marshalled
				return append(b, `""`...)
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
