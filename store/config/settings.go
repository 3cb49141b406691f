package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// entry is the value of a key, as text or as a list, and where it stands.
type entry struct {
	text string
	list []Value
	from string
}

// settings are what all files together say: full key → entry.
type settings map[string]entry

// add lays a file over what earlier ones said. keep, unless nil, tells which
// keys of it count.
func (s settings) add(f *file, keep func(key string) bool) {
	for _, key := range f.keys() {
		if keep != nil && !keep(key) {
			continue
		}
		from := place(f.path, f.line(key))
		if schema(key) != kindList {
			s[key] = entry{text: textOf(f.values[key]), from: from}
			continue
		}
		texts, more, _ := listOf(f.values[key]) // check saw that it is one
		e := entry{from: from}
		if more {
			e.list = slices.Clone(s[key].list)
		}
		for _, text := range texts {
			e.list = append(e.list, Value{text, from})
		}
		s[key] = e
	}
}

// text returns a setting of the table `storage`; an empty one is not set.
func (s settings) text(name string) (Value, bool) {
	e := s["storage."+name]
	return Value{e.text, e.from}, e.text != ""
}

// value is text for those who take an empty one.
func (s settings) value(name string) Value {
	v, _ := s.text(name)
	return v
}

// table returns the texts of all keys of a table, sorted.
func (s settings) table(name string) []Option {
	var out []Option
	for _, key := range slices.Sorted(maps.Keys(s)) {
		if rest, ok := strings.CutPrefix(key, name+"."); ok {
			out = append(out, Option{rest, Value{s[key].text, s[key].from}})
		}
	}
	return out
}

// options adds what the tables storage.options and storage.options.DRIVER say
// for c's driver: the driver's own table wins.
func (s settings) options(c *Config) error {
	for _, v := range s["storage.options.additionalimagestores"].list {
		if !filepath.IsAbs(v.Text) {
			return errno.New(errno.ErrBadValue, "%s: the image store %q is not an absolute path: write it from / on", v.From, v.Text)
		}
		c.ImageStores = append(c.ImageStores, Value{filepath.Clean(v.Text), v.From})
	}
	for _, v := range s["storage.options.additionallayerstores"].list {
		if err := c.addLayerStore(v); err != nil {
			return err
		}
	}
	for _, name := range driverKeys(c.Driver.Text) {
		for _, key := range []string{"options." + c.Driver.Text + "." + name, "options." + name} {
			if v, ok := s.text(key); ok {
				c.Options = append(c.Options, Option{name, v})
				break
			}
		}
	}
	return nil
}

// addLayerStore adds an additional layer store, "PATH" or "PATH:ref".
func (c *Config) addLayerStore(v Value) error {
	if _, err := store.ParseLayerStore(v.Text); err != nil {
		return fmt.Errorf("%s: %w", v.From, err)
	}
	c.LayerStores = append(c.LayerStores, v)
	return nil
}
