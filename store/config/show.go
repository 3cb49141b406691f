package config

import (
	"fmt"
	"strings"
)

// Setting is one effective setting and where each of its values came from.
type Setting struct {
	// Table and Key are as in storage.conf: "storage.options", "remap-uids".
	Table, Key string
	// Values has one element, or for a List any number.
	Values []Value
	List   bool
}

// Settings returns what is set, defaults of the three first ones included, in
// the order of a storage.conf.
func (c *Config) Settings() []Setting {
	const storage, options = "storage", "storage.options"
	var out []Setting
	one := func(table, key string, v Value) {
		if v.Text != "" {
			out = append(out, Setting{table, key, []Value{v}, false})
		}
	}
	list := func(table, key string, vs []Value) {
		if len(vs) > 0 {
			out = append(out, Setting{table, key, vs, true})
		}
	}
	one(storage, "driver", c.Driver)
	one(storage, "graphroot", c.GraphRoot)
	one(storage, "runroot", c.RunRoot)
	one(storage, "rootless_storage_path", c.RootlessStoragePath)
	one(storage, "imagestore", c.ImageStore)
	one(storage, "transient_store", c.TransientStore)
	list(storage, "driver_priority", c.DriverPriority)
	list(options, "additionalimagestores", c.ImageStores)
	list(options, "additionallayerstores", c.LayerStores)
	one(options, "remap-uids", c.Remap.UIDs)
	one(options, "remap-gids", c.Remap.GIDs)
	one(options, "remap-user", c.Remap.User)
	one(options, "remap-group", c.Remap.Group)
	one(options, "root-auto-userns-user", c.AutoUserns.User)
	one(options, "auto-userns-min-size", c.AutoUserns.MinSize)
	one(options, "auto-userns-max-size", c.AutoUserns.MaxSize)
	one(options, "disable-volatile", c.DisableVolatile)
	for _, o := range c.PullOptions {
		one(pullTable, o.Key, o.Value)
	}
	for _, o := range c.Options {
		out = append(out, Setting{options + "." + c.Driver.Text, o.Key, []Value{o.Value}, false})
	}
	return out
}

// Lines returns the options as "driver.key=value", sorted as they were given.
func (c *Config) Lines() []string {
	lines := make([]string, 0, len(c.Options)+len(c.ImageStores)+len(c.LayerStores))
	for _, s := range c.ImageStores {
		lines = append(lines, c.Driver.Text+".imagestore="+s.Text)
	}
	for _, s := range c.LayerStores {
		lines = append(lines, c.Driver.Text+".additionallayerstore="+s.Text)
	}
	for _, o := range c.Options {
		lines = append(lines, c.Driver.Text+"."+o.Key+"="+o.Text)
	}
	return lines
}

// TOML returns the settings in the form of a storage.conf, each line with
// where its value came from.
func (c *Config) TOML() []byte {
	var b strings.Builder
	table := ""
	for _, s := range c.Settings() {
		if s.Table != table {
			if table != "" {
				b.WriteByte('\n')
			}
			table = s.Table
			fmt.Fprintf(&b, "[%s]\n", table)
		}
		if !s.List {
			fmt.Fprintf(&b, "%s = %s # %s\n", s.Key, quote(s.Values[0].Text), s.Values[0].From)
			continue
		}
		fmt.Fprintf(&b, "%s = [\n", s.Key)
		for _, v := range s.Values {
			fmt.Fprintf(&b, "  %s, # %s\n", quote(v.Text), v.From)
		}
		b.WriteString("]\n")
	}
	return []byte(b.String())
}

// quote returns s as a basic string of TOML.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
