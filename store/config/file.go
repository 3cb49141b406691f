package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/plyfs/plyfs/internal/errno"
)

// maxFile bounds a storage.conf, in bytes.
const maxFile = 1 << 20

// file is a storage.conf or a drop-in, decoded and checked.
type file struct {
	path     string
	values   map[string]any // full key ("storage.options.size") → value
	lines    map[string]int // full key → line
	warnings []Warning
}

// readFile reads and checks a storage.conf. A file that does not exist is
// fs.ErrNotExist.
func readFile(path string) (*file, error) {
	text, err := readLimited(path)
	if err != nil {
		return nil, err
	}
	var tree map[string]any
	if _, err := toml.Decode(text, &tree); err != nil {
		var perr toml.ParseError
		if errors.As(err, &perr) {
			return nil, errno.New(errno.ErrBadValue, "%s:%d: this is not TOML: %s", path, perr.Position.Line, perr.Message)
		}
		return nil, errno.New(errno.ErrBadValue, "%s: this is not TOML: %w", path, err)
	}
	f := &file{path: path, values: map[string]any{}, lines: keyLines(text)}
	flatten("", tree, f.values)
	return f, f.check()
}

func readLimited(path string) (text string, err error) {
	r, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxFile {
		return "", errno.New(errno.ErrTooLarge, "%s is larger than %d bytes: this is no storage.conf", path, maxFile)
	}
	return string(b), nil
}

// flatten turns nested tables into full keys.
func flatten(prefix string, tree map[string]any, into map[string]any) {
	for name, v := range tree {
		key := prefix + name
		sub, ok := v.(map[string]any)
		if !ok {
			into[key] = v
			continue
		}
		if len(sub) == 0 && schema(key) != kindFolder {
			into[key] = sub // an empty table that nothing knows
		}
		flatten(key+".", sub, into)
	}
}

// line returns where a key stands: for one of an inline table, the table's.
func (f *file) line(key string) int {
	for {
		if n, ok := f.lines[key]; ok {
			return n
		}
		i := strings.LastIndexByte(key, '.')
		if i < 0 {
			return 0
		}
		key = key[:i]
	}
}

// keys returns the full keys in the order of their lines.
func (f *file) keys() []string {
	keys := make([]string, 0, len(f.values))
	for k := range f.values {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if d := f.line(a) - f.line(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return keys
}

// check warns of keys that are not known or have no effect, and refuses
// values of the wrong type.
func (f *file) check() error {
	for _, k := range f.keys() {
		kind := schema(k)
		switch {
		case kind == kindUnknown:
			f.warn(k, "the key %q is not known: is it spelled as in containers-storage.conf(5)?", k)
			f.warnings[len(f.warnings)-1].Unknown = true
		case !kind.fits(f.values[k]):
			return errno.New(errno.ErrBadValue, "%s: the key %q wants %s, not %v", place(f.path, f.line(k)), k, kind, f.values[k])
		case kind == kindIdle && textOf(f.values[k]) != "":
			f.warn(k, "the key %q has no effect here", k)
		}
	}
	return nil
}

func (f *file) warn(key, format string, args ...any) {
	f.warnings = append(f.warnings, Warning{File: f.path, Line: f.line(key), Text: fmt.Sprintf(format, args...)})
}

// textOf returns a value as text: "string booleans" are written both ways.
func textOf(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	}
	return ""
}

// keyLines finds the line of every key and table by reading the text line by
// line. It serves messages only: what it cannot tell has no line.
func keyLines(text string) map[string]int {
	lines := map[string]int{}
	table := ""
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			if end := strings.IndexByte(line, ']'); end > 0 {
				table = plainKey(strings.Trim(line[:end], "["))
				remember(lines, table, n)
			}
			continue
		}
		key, _, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if table != "" {
			key = table + "." + plainKey(key)
		}
		remember(lines, plainKey(key), n)
	}
	return lines
}

func remember(lines map[string]int, key string, n int) {
	if _, ok := lines[key]; !ok {
		lines[key] = n
	}
}

// plainKey drops the blanks and quotes of a dotted key.
func plainKey(key string) string {
	parts := strings.Split(key, ".")
	for i, p := range parts {
		parts[i] = strings.Trim(strings.TrimSpace(p), `"'`)
	}
	return strings.Join(parts, ".")
}
