package options

import "strings"

// splitItems splits an -o argument at its commas. Items keep their backslashes
// and lose the double quotes around a value that is quoted whole.
//
// Law: joining items that hold no quote gives the argument back.
func splitItems(arg string) []string {
	var items []string
	start, quoted := 0, false
	for i := 0; i < len(arg); i++ {
		switch c := arg[i]; {
		case c == '\\':
			i++
		case c == '"' && (quoted || start+strings.IndexByte(arg[start:], '=') == i-1):
			quoted = !quoted
		case c == ',' && !quoted:
			items = append(items, arg[start:i])
			start = i + 1
		}
	}
	if quoted {
		// A quote without an end quotes nothing.
		return append(items, strings.Split(arg[start:], ",")...)
	}
	return append(items, arg[start:])
}

// unquote takes the double quotes off a value that begins and ends with one.
func unquote(value string) string {
	if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
		return value[1 : n-1]
	}
	return value
}

// unescape undoes backslashes as libfuse's option parser does: the byte after
// one is taken as it is, three octal digits are a byte's number. A backslash
// before a byte of keep stays, with that byte.
func unescape(s, keep string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if i+2 < len(s) && s[i] <= '3' && octal(s[i]) && octal(s[i+1]) && octal(s[i+2]) {
			b.WriteByte((s[i]-'0')<<6 | (s[i+1]-'0')<<3 | (s[i+2] - '0'))
			i += 2
			continue
		}
		if strings.IndexByte(keep, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return c >= '0' && c <= '7' }

// splitList splits the value of lowerdir, whose first escapes are undone, at
// the colons that have no backslash before them, and takes those backslashes
// away. Empty elements are left out.
func splitList(value string) []string {
	var list []string
	var b strings.Builder
	flush := func() {
		if b.Len() > 0 {
			list = append(list, b.String())
		}
		b.Reset()
	}
	for i := 0; i < len(value); i++ {
		switch {
		case value[i] == '\\' && i+1 < len(value) && (value[i+1] == ':' || value[i+1] == '\\'):
			i++
			b.WriteByte(value[i])
		case value[i] == ':':
			flush()
		default:
			b.WriteByte(value[i])
		}
	}
	flush()
	return list
}
