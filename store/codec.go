package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/idmap"
)

// meta is what the store remembers of a record beside its fields.
type meta struct {
	// raw is the record's text in its file, "" when it was changed since.
	raw string
	// extra are members that we know nothing of, kept for the next rewrite.
	extra []member
	// ranges are the ID maps' texts when there is more in them than we know.
	ranges []member
	// damage says which member could not be understood, or is "".
	damage string
	// shadow is the index, plus one, of the additional store it was read
	// from; 0 is the store's own file.
	shadow int
	// file is the own file that the record belongs into.
	file int
	// trimmed tells that Names lacks one that raw has, since another record
	// has it too and counts.
	trimmed bool
	// changed is when a change was last seen; zero for never.
	changed time.Time
}

// member is one member of a JSON object, as text; key has its quotes.
type member struct{ key, value string }

// decoder collects what went wrong while the members of one record are decoded.
type decoder struct {
	wrong []string
	odd   []member // ID maps with more in them than we know
	seen  *seen    // nil where there is one record only
}

// seen holds values of the records before, by their text: many have the same
// ones, and nobody changes them.
type seen struct {
	flags map[string]map[string]any
	ids   map[string][]uint32
}

// maxSeen bounds how many different values of a sort are remembered.
const maxSeen = 64

func (d *decoder) fail(key string, err error) {
	if err != nil {
		d.wrong = append(d.wrong, fmt.Sprintf("%s: %v", key, err))
	}
}

func isNull(raw string) bool { return raw == "null" }

func (d *decoder) str(key, raw string, to *string) {
	if isNull(raw) {
		return
	}
	s, err := unquote(raw)
	d.fail(key, err)
	*to = s
}

func (d *decoder) digest(key, raw string, to *digest.Digest) {
	var s string
	d.str(key, raw, &s)
	*to = digest.Digest(s)
}

func (d *decoder) strs(key, raw string, to *[]string) {
	if isNull(raw) {
		return
	}
	p := scanner{s: raw}
	d.fail(key, p.array(0, func(v string) error {
		s, err := unquote(v)
		if err == nil {
			*to = append(*to, s)
		}
		return err
	}))
}

func (d *decoder) int64(key, raw string, to *int64) {
	if isNull(raw) {
		return
	}
	n, err := strconv.ParseInt(raw, 10, 64)
	if err != nil {
		d.fail(key, fmt.Errorf("%.20s is no whole number", raw))
		return
	}
	*to = n
}

func (d *decoder) ids(key, raw string, to *[]uint32) {
	if isNull(raw) {
		return
	}
	if d.seen != nil {
		if known, ok := d.seen.ids[raw]; ok {
			*to = known
			return
		}
	}
	before := len(d.wrong)
	p := scanner{s: raw}
	d.fail(key, p.array(0, func(v string) error {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			return fmt.Errorf("%.20s is no ID", v)
		}
		*to = append(*to, uint32(n))
		return nil
	}))
	if d.seen != nil && len(d.seen.ids) < maxSeen && len(d.wrong) == before {
		put(&d.seen.ids, raw, *to)
	}
}

func (d *decoder) time(key, raw string, to *time.Time) {
	var s string
	if d.str(key, raw, &s); s == "" {
		return
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		d.fail(key, fmt.Errorf("%.40q is no time", s))
		return
	}
	*to = t
}

// any decodes rare members through encoding/json, numbers as json.Number.
func (d *decoder) any(key, raw string, to any) {
	if isNull(raw) {
		return
	}
	dec := json.NewDecoder(strings.NewReader(raw))
	dec.UseNumber()
	d.fail(key, dec.Decode(to))
}

// flagsOf decodes flags, or shares those of a record that had the same text.
func (d *decoder) flagsOf(key, raw string, to *map[string]any) {
	if d.seen != nil {
		if known, ok := d.seen.flags[raw]; ok {
			*to = known
			return
		}
	}
	before := len(d.wrong)
	d.any(key, raw, to)
	if d.seen != nil && len(d.seen.flags) < maxSeen && len(d.wrong) == before {
		put(&d.seen.flags, raw, *to)
	}
}

// pairs walks an object's members with their names decoded.
func (d *decoder) pairs(key, raw string, one func(name, v string)) {
	if isNull(raw) {
		return
	}
	p := scanner{s: raw}
	d.fail(key, p.object(0, func(k, v string) error {
		name, err := unquote(k)
		if err == nil {
			one(name, v)
		}
		return err
	}))
}

func (d *decoder) sizes(key, raw string, to *map[string]int64) {
	d.pairs(key, raw, func(name, v string) {
		var n int64
		d.int64(key, v, &n)
		put(to, name, n)
	})
}

func (d *decoder) digests(key, raw string, to *map[string]digest.Digest) {
	d.pairs(key, raw, func(name, v string) {
		var dg digest.Digest
		d.digest(key, v, &dg)
		put(to, name, dg)
	})
}

func put[V any](to *map[string]V, name string, v V) {
	if *to == nil {
		*to = make(map[string]V)
	}
	(*to)[name] = v
}

func (d *decoder) ranges(key, raw string, to *[]idmap.Range) {
	d.any(key, raw, to)
	for _, r := range *to {
		if r.ContainerID < 0 || r.HostID < 0 || r.Size < 0 {
			d.fail(key, errors.New("a range is negative"))
		}
	}
	if len(*to) > 0 && string(appendRanges(nil, *to)) != raw {
		d.odd = append(d.odd, member{key, raw})
	}
}

// decodeRecord walks the members of the object that comes next: known decodes
// one and tells whether it knows the key. The result goes into m. The error is
// one of syntax.
func decodeRecord(p *scanner, m *meta, known func(d *decoder, key, value string) bool) error {
	d := &p.dec
	*d = decoder{seen: p.seen}
	p.space()
	start := p.i
	err := p.object(1, func(key, value string) error {
		name, err := unquote(key)
		if err != nil {
			return err
		}
		if !known(d, name, value) {
			m.extra = append(m.extra, member{key, value})
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.raw, m.ranges = p.s[start:p.i], d.odd
	m.damage = strings.Join(d.wrong, "; ")
	return nil
}

// encoder appends the members of one record, leaving out what is empty.
type encoder struct{ b []byte }

func (e *encoder) key(k string) {
	if n := len(e.b); n > 0 && e.b[n-1] != '{' {
		e.b = append(e.b, ',')
	}
	e.b = append(e.b, '"')
	e.b = append(e.b, k...)
	e.b = append(e.b, '"', ':')
}

func (e *encoder) always(k, v string) {
	e.key(k)
	e.b = appendQuoted(e.b, v)
}

func (e *encoder) str(k, v string) {
	if v != "" {
		e.always(k, v)
	}
}

func (e *encoder) strs(k string, v []string) {
	if len(v) == 0 {
		return
	}
	e.key(k)
	e.b = append(e.b, '[')
	for i, s := range v {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.b = appendQuoted(e.b, s)
	}
	e.b = append(e.b, ']')
}

func (e *encoder) int(k string, v int64) {
	if v != 0 {
		e.key(k)
		e.b = strconv.AppendInt(e.b, v, 10)
	}
}

func (e *encoder) ids(k string, v []uint32) {
	if len(v) == 0 {
		return
	}
	e.key(k)
	e.b = append(e.b, '[')
	for i, n := range v {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.b = strconv.AppendUint(e.b, uint64(n), 10)
	}
	e.b = append(e.b, ']')
}

func (e *encoder) time(k string, t time.Time) {
	e.key(k)
	e.b = append(e.b, '"')
	e.b = t.AppendFormat(e.b, time.RFC3339Nano)
	e.b = append(e.b, '"')
}

// ranges writes an ID map as it was read, while it means the same.
func (e *encoder) ranges(m *meta, k string, v []idmap.Range) {
	if len(v) == 0 {
		return
	}
	e.key(k)
	for _, text := range m.ranges {
		var d decoder
		var read []idmap.Range
		if text.key == k {
			d.any(k, text.value, &read)
			if len(d.wrong) == 0 && slices.Equal(read, v) {
				e.b = append(e.b, text.value...)
				return
			}
		}
	}
	e.b = appendRanges(e.b, v)
}

func appendRanges(b []byte, v []idmap.Range) []byte {
	for i, r := range v {
		sep := byte(',')
		if i == 0 {
			sep = '['
		}
		b = fmt.Appendf(append(b, sep), `{"container_id":%d,"host_id":%d,"size":%d}`, r.ContainerID, r.HostID, r.Size)
	}
	return append(b, ']')
}

// pairs appends a map with sorted keys; one appends a value.
func pairs[V any](e *encoder, k string, m map[string]V, one func([]byte, V) []byte) {
	if len(m) == 0 {
		return
	}
	e.key(k)
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for i, key := range keys {
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		e.b = append(appendQuoted(append(e.b, sep), key), ':')
		e.b = one(e.b, m[key])
	}
	e.b = append(e.b, '}')
}

func (e *encoder) flags(k string, m map[string]any) error {
	if len(m) == 0 {
		return nil
	}
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", k, err)
	}
	e.key(k)
	e.b = append(e.b, text...)
	return nil
}

// finish appends the members that we know nothing of, and the brace.
func (e *encoder) finish(m *meta) []byte {
	for _, x := range m.extra {
		if e.b[len(e.b)-1] != '{' {
			e.b = append(e.b, ',')
		}
		e.b = append(append(append(e.b, x.key...), ':'), x.value...)
	}
	return append(e.b, '}')
}

func appendInt(b []byte, n int64) []byte            { return strconv.AppendInt(b, n, 10) }
func appendDigest(b []byte, d digest.Digest) []byte { return appendQuoted(b, string(d)) }
