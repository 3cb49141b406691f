package store

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// AppendJSON appends the record as its file has it to b, members that we do
// not know included, with no space between tokens.
func (l *Layer) AppendJSON(b []byte) ([]byte, error) { return appendRecord(b, l) }

// AppendJSON appends the record as its file has it; see Layer.
func (i *Image) AppendJSON(b []byte) ([]byte, error) { return appendRecord(b, i) }

// AppendJSON appends the record as its file has it; see Layer.
func (c *Container) AppendJSON(b []byte) ([]byte, error) { return appendRecord(b, c) }

// MarshalJSON is AppendJSON to nothing.
func (l *Layer) MarshalJSON() ([]byte, error) { return l.AppendJSON(nil) }

// MarshalJSON is AppendJSON to nothing.
func (i *Image) MarshalJSON() ([]byte, error) { return i.AppendJSON(nil) }

// MarshalJSON is AppendJSON to nothing.
func (c *Container) MarshalJSON() ([]byte, error) { return c.AppendJSON(nil) }

func appendRecord[R record[R]](b []byte, r R) ([]byte, error) {
	m := r.m()
	spaced := func(x member) bool { return strings.ContainsAny(x.value, " \t\r\n") }
	if !slices.ContainsFunc(m.extra, spaced) && !slices.ContainsFunc(m.ranges, spaced) {
		return r.append(b)
	}
	text, err := r.append(nil) // what came from the file may have spaces
	if err != nil {
		return b, err
	}
	var compact bytes.Buffer
	err = json.Compact(&compact, text)
	return append(b, compact.Bytes()...), err
}
