package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/plyfs/plyfs/internal/errno"
)

// maxFile bounds a storage.conf, in bytes.
const maxFile = 1 << 20

// file is a storage.conf, decoded and checked.
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

// flatten turns nested tables into full keys. Inline tables stay values.
func flatten(prefix string, tree map[string]any, into map[string]any) {
	for name, v := range tree {
		key := prefix + name
		if sub, ok := v.(map[string]any); ok && schema(key) != kindTable {
			if len(sub) == 0 && schema(key) != kindFolder {
				into[key] = sub // an empty table that nothing knows
			}
			flatten(key+".", sub, into)
			continue
		}
		into[key] = v
	}
}

// check warns of keys that are not known or have no effect, and refuses
// values of the wrong type.
func (f *file) check() error {
	keys := make([]string, 0, len(f.values))
	for k := range f.values {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if d := f.lines[a] - f.lines[b]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for _, k := range keys {
		kind := schema(k)
		switch {
		case kind == kindUnknown:
			f.warn(k, "the key %q is not known: is it spelled as in containers-storage.conf(5)?", k)
			f.warnings[len(f.warnings)-1].Unknown = true
		case !kind.fits(f.values[k]):
			return errno.New(errno.ErrBadValue, "%s: the key %q wants %s, not %v", place(f.path, f.lines[k]), k, kind, f.values[k])
		case kind == kindIdle && f.string(k) != "":
			f.warn(k, "the key %q has no effect here", k)
		}
	}
	return nil
}

func (f *file) warn(key, format string, args ...any) {
	f.warnings = append(f.warnings, Warning{File: f.path, Line: f.lines[key], Text: fmt.Sprintf(format, args...)})
}

// refuse tells of settings that mean a store of a form that cannot be opened.
func (f *file) refuse() error {
	for _, key := range []string{"storage.transient_store", "storage.imagestore"} {
		if v := f.string(key); v != "" && v != "false" {
			return errno.New(errno.ErrNotSupported, "%s: %s is set, and plyfs cannot open such a store: unset it or name another store with --root", place(f.path, f.lines[key]), key)
		}
	}
	return nil
}

// text returns a setting of the table `storage`; an empty one is not set.
func (f *file) text(name string) (Value, bool) {
	key := "storage." + name
	v := f.string(key)
	return Value{v, place(f.path, f.lines[key])}, v != ""
}

// string returns a value as text: "string booleans" are written both ways.
func (f *file) string(key string) string {
	switch v := f.values[key].(type) {
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	}
	return ""
}

// options adds what the tables storage.options and storage.options.DRIVER say
// for c's driver: the driver's own table wins.
func (f *file) options(c *Config) error {
	stores, _ := f.values["storage.options.additionalimagestores"].([]any)
	for _, s := range stores {
		path, _ := s.(string) // check saw to that
		if !filepath.IsAbs(path) {
			return errno.New(errno.ErrBadValue, "%s: the image store %q is not an absolute path: write it from / on",
				place(f.path, f.lines["storage.options.additionalimagestores"]), path)
		}
		c.ImageStores = append(c.ImageStores, Value{filepath.Clean(path), place(f.path, f.lines["storage.options.additionalimagestores"])})
	}
	for _, name := range driverKeys(c.Driver.Text) {
		for _, key := range []string{"storage.options." + c.Driver.Text + "." + name, "storage.options." + name} {
			if v := f.string(key); v != "" {
				c.Options = append(c.Options, Option{name, Value{v, place(f.path, f.lines[key])}})
				break
			}
		}
	}
	return nil
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
