package fsview

import (
	"strings"
	"unicode/utf8"

	"github.com/plyfs/plyfs/internal/errno"
)

// maxEntry is the longest file name, in bytes.
const maxEntry = 255

const hexDigits = "0123456789ABCDEF"

// Encode returns name as one path component. Its laws:
//
//	Decode(Encode(x)) == x for every non-empty x
//	Encode is injective, and its image holds no `/`, no control byte, and
//	neither "." nor ".."
//	a name without `/`, `%` and control bytes, that is not "." or "..", is
//	its own encoding
//
// Bytes below 0x20, 0x7F, `/` and `%` become %XX with upper-case digits; all
// other bytes stay. The result may be longer than a file name can be.
func Encode(name string) string {
	if name == "." || name == ".." {
		return escapeByte(name[0]) + name[1:]
	}
	n := 0
	for i := range len(name) {
		if mustEscape(name[i]) {
			n++
		}
	}
	if n == 0 {
		return name
	}
	var b strings.Builder
	b.Grow(len(name) + 2*n)
	for i := range len(name) {
		if mustEscape(name[i]) {
			b.WriteString(escapeByte(name[i]))
		} else {
			b.WriteByte(name[i])
		}
	}
	return b.String()
}

// EncodeFirst is Encode with the first byte encoded in any case. It keeps the
// laws of Encode but the last one; EncodeFirst(x) != Encode(y) for every y
// that is not x.
func EncodeFirst(name string) string {
	if name == "" || mustEscape(name[0]) {
		return Encode(name)
	}
	rest := name[1:]
	if rest == "." || rest == ".." {
		return escapeByte(name[0]) + rest
	}
	return escapeByte(name[0]) + Encode(rest)
}

// encodeAll encodes every byte.
func encodeAll(name string) string {
	var b strings.Builder
	for i := range len(name) {
		b.WriteString(escapeByte(name[i]))
	}
	return b.String()
}

// Decode is the inverse of Encode and EncodeFirst. It takes digits of either
// case, and refuses a `%` that no two hexadecimal digits follow, and %00.
func Decode(entry string) (string, error) {
	if !strings.Contains(entry, "%") {
		return entry, nil
	}
	var b strings.Builder
	b.Grow(len(entry))
	for i := 0; i < len(entry); i++ {
		if entry[i] != '%' {
			b.WriteByte(entry[i])
			continue
		}
		if i+2 >= len(entry) {
			return "", errPercent(entry)
		}
		hi, lo := unhex(entry[i+1]), unhex(entry[i+2])
		if hi < 0 || lo < 0 || hi == 0 && lo == 0 {
			return "", errPercent(entry)
		}
		b.WriteByte(byte(hi<<4 | lo))
		i += 2
	}
	return b.String(), nil
}

func errPercent(entry string) error {
	return errno.New(errno.ErrBadValue, "%q is not an encoded name: %% must be followed by two hexadecimal digits; write a %% of the name itself as %%25", clip(entry))
}

func mustEscape(c byte) bool { return c < 0x20 || c == 0x7f || c == '/' || c == '%' }

func escapeByte(c byte) string { return string([]byte{'%', hexDigits[c>>4], hexDigits[c&15]}) }

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// isID tells whether s has the form of an ID: 64 lower-case hexadecimal
// digits.
func isID(s string) bool {
	if len(s) != 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// maxName is the longest name of an object, in bytes: the longest path that a
// by-name look-up can be asked for.
const maxName = 4096 - 256

// checkName refuses what cannot be the name of an object.
func checkName(name string) error {
	switch {
	case name == "":
		return errno.New(errno.ErrBadValue, "an empty name is not a name: write at least one character")
	case len(name) > maxName:
		return errno.New(errno.ErrNameTooLong, "the name %q… has %d bytes, the limit is %d: choose a shorter one", clip(name), len(name), maxName)
	case !utf8.ValidString(name):
		return errno.New(errno.ErrBadValue, "%q is not a name: it is not valid UTF-8, which the store's records need", clip(name))
	case strings.ContainsAny(name, "\n\x00"):
		return errno.New(errno.ErrBadValue, "%q is not a name: it holds a line break or a zero byte", clip(name))
	case strings.TrimSpace(name) != name:
		return errno.New(errno.ErrBadValue, "%q is not a name: it begins or ends with white space", clip(name))
	}
	return nil
}

// nameOf decodes an entry that is to become a name or an ID.
func nameOf(entry string) (string, error) {
	name, err := Decode(entry)
	if err != nil {
		return "", err
	}
	return name, checkName(name)
}

// clip shortens what a sentence quotes.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}
