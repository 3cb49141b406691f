package layertar

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/opencontainers/go-digest"
)

// errTOC says that a table of contents is not that of its stream.
var errTOC = errors.New("the table of contents is not that of the stream")

// tocEntry is one line of a table of contents: a member, or a further chunk of
// the file before.
type tocEntry struct {
	Type     string            `json:"type"`
	Name     string            `json:"name"`
	Linkname string            `json:"linkName"`
	Mode     int64             `json:"mode"`
	Size     int64             `json:"size"`
	UID      int64             `json:"uid"`
	GID      int64             `json:"gid"`
	Major    int64             `json:"devMajor"`
	Minor    int64             `json:"devMinor"`
	Modtime  time.Time         `json:"modtime"`
	Xattrs   map[string][]byte `json:"xattrs"`
	Digest   digest.Digest     `json:"digest"`
	// A part of a file, of its line or of a further one. No length is all that
	// is left, no digest that nobody takes it for anything.
	ChunkOffset int64         `json:"chunkOffset"`
	ChunkSize   int64         `json:"chunkSize"`
	ChunkDigest digest.Digest `json:"chunkDigest"`
	ChunkType   string        `json:"chunkType"`
}

// tocNames are the names of its fields, in lower case, as they are written.
func tocNames() map[string]string {
	names := map[string]string{"entries": "entries"}
	for _, n := range []string{"type", "name", "linkName", "mode", "size", "uid", "gid", "devMajor", "devMinor", "modtime", "xattrs", "digest",
		"chunkOffset", "chunkSize", "chunkDigest", "chunkType"} {
		names[strings.ToLower(n)] = n
	}
	return names
}

// CheckTOC tells whether a table of contents, uncompressed, says of the stream
// that is recorded at split and extracted to dir what is in it: the same
// members in the same order, with the same names, owners, modes, times,
// attributes and contents. Others trust a table in place of the stream, and
// take files of a layer for those that its table names, so that one which
// differs must not be kept. The error is of reading the stream.
func CheckTOC(ctx context.Context, dir *os.File, split string, toc io.Reader) (ok bool, err error) {
	s, err := OpenSplit(split)
	if err != nil {
		return false, err
	}
	defer closing(&err, s.Close)
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := s.Reader(dir).Copy(ctx, pw)
		done <- err
		_ = pw.CloseWithError(err) // a pipe's never fails
	}()
	bounded := &boundedReader{r: toc}
	c := tocCheck{in: bounded, dec: json.NewDecoder(bounded), names: tocNames(), p: &parser{in: pr, raw: func([]byte) {}, lim: Limits{}.withDefaults()}}
	err = c.run()
	_ = pr.CloseWithError(errTOC) // ends the copy, if it goes on
	rerr := <-done
	if rerr != nil && !errors.Is(rerr, errTOC) {
		return false, rerr
	}
	return err == nil, nil
}

// tocCheck reads a table and its stream side by side.
type tocCheck struct {
	in    *boundedReader
	dec   *json.Decoder
	p     *parser
	names map[string]string
	next  *tocEntry // read already
}

// run compares everything; any error means that the table is none of this
// stream.
func (c *tocCheck) run() error {
	if err := c.delim('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for c.more() {
		key, err := c.key(c.dec, seen)
		if err != nil {
			return err
		}
		if key == "entries" {
			err = c.entries()
		} else {
			var skip json.RawMessage
			err = c.value(&skip)
		}
		if err != nil {
			return err
		}
	}
	if !seen["entries"] {
		return errTOC
	}
	if err := c.delim('}'); err != nil {
		return err
	}
	c.in.left = tocLimit
	if _, err := c.dec.Token(); err != io.EOF {
		return errTOC
	}
	return nil
}

// key reads an object's next key. Readers of JSON differ in what they make of
// keys that come twice or in another case: these are refused.
func (c *tocCheck) key(dec *json.Decoder, seen map[string]bool) (string, error) {
	t, err := dec.Token()
	if err != nil {
		return "", err
	}
	key, ok := t.(string)
	low := strings.ToLower(key)
	known, isKnown := c.names[low]
	if !ok || seen[low] || (isKnown && key != known) || strings.IndexFunc(key, func(r rune) bool { return r > unicode.MaxASCII }) >= 0 {
		return "", errTOC
	}
	seen[low] = true
	return key, nil
}

// entry returns the next line without taking it; nil at the end.
func (c *tocCheck) entry() (*tocEntry, error) {
	if c.next != nil || !c.more() {
		return c.next, nil
	}
	var raw json.RawMessage
	if err := c.value(&raw); err != nil {
		return nil, err
	}
	dec, seen := json.NewDecoder(bytes.NewReader(raw)), map[string]bool{}
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errTOC
	}
	for dec.More() {
		if _, err := c.key(dec, seen); err != nil {
			return nil, err
		}
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			return nil, err
		}
	}
	e := &tocEntry{}
	err := json.Unmarshal(raw, e)
	if err == nil {
		c.next = e
	}
	return c.next, err
}

func (c *tocCheck) more() bool {
	c.in.left = tocLimit
	return c.dec.More()
}

func (c *tocCheck) value(to any) error {
	c.in.left = tocLimit
	return c.dec.Decode(to)
}

func (c *tocCheck) delim(want json.Delim) error {
	c.in.left = tocLimit
	got, err := c.dec.Token()
	if err == nil && got != want {
		err = errTOC
	}
	return err
}

func (c *tocCheck) entries() error {
	if err := c.delim('['); err != nil {
		return err
	}
	for {
		e, err := c.entry()
		if err != nil {
			return err
		}
		if e == nil {
			break
		}
		c.next = nil
		h, err := c.p.next()
		if err != nil { // the stream ends first
			return err
		}
		if !e.describes(h) {
			return errTOC
		}
		if err := c.content(e); err != nil {
			return err
		}
	}
	if _, err := c.p.next(); err != io.EOF { //nolint:errorlint // next returns it bare
		return errTOC
	}
	return c.delim(']')
}

// content compares a file's digest, which an empty one need not have, and those
// of its parts, which follow one another to its end.
func (c *tocCheck) content(e *tocEntry) error {
	if e.Type != "reg" {
		return nil
	}
	h := sha256.New()
	at, line := int64(0), e
	for {
		n := cmp.Or(line.ChunkSize, e.Size-at)
		if line.ChunkOffset != at || n < 0 || n > e.Size-at {
			return errTOC
		}
		if err := line.part(io.TeeReader(io.LimitReader(c.p, n), h), n); err != nil {
			return err
		}
		at += n
		next, err := c.entry()
		if err != nil {
			return err
		}
		if next == nil || next.Type != "chunk" {
			break
		}
		if line = next; line.Name != e.Name || at == e.Size {
			return errTOC
		}
		c.next = nil
	}
	if at != e.Size || !e.has(digest.NewDigest(digest.SHA256, h)) {
		return errTOC
	}
	return nil
}

// has tells whether the content is what the line says.
func (e *tocEntry) has(d digest.Digest) bool { return e.Digest == d || (e.Size == 0 && e.Digest == "") }

// part compares one part of a file, of n bytes.
func (e *tocEntry) part(r io.Reader, n int64) error {
	h, zeros := sha256.New(), true
	buf := make([]byte, 32<<10)
	for {
		k, err := r.Read(buf)
		h.Write(buf[:k])
		n -= int64(k)
		zeros = zeros && len(bytes.Trim(buf[:k], "\x00")) == 0
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	switch {
	case n != 0, e.ChunkDigest != "" && digest.NewDigest(digest.SHA256, h) != e.ChunkDigest,
		e.ChunkType != "" && (e.ChunkType != "zeros" || !zeros):
		return errTOC
	}
	return nil
}

// describes compares everything but the content.
func (e *tocEntry) describes(h *header) bool {
	types := map[byte]string{
		typeReg: "reg", typeLink: "hardlink", typeSymlink: "symlink", typeChar: "char",
		typeBlock: "block", typeDir: "dir", typeFifo: "fifo",
	}
	if types[h.typ] != e.Type || h.isSparse || strings.TrimSuffix(h.name, "/") != strings.TrimSuffix(e.Name, "/") {
		return false
	}
	if h.mode&0o7777 != e.Mode&0o7777 || h.uid != e.UID || h.gid != e.GID || !h.mtime.Equal(e.Modtime) {
		return false
	}
	return e.special(h) && e.onlyOwn(h) && e.attributes(h)
}

// special compares what only some types have.
func (e *tocEntry) special(h *header) bool {
	switch h.typ {
	case typeReg:
		return h.size == e.Size
	case typeLink, typeSymlink:
		return h.link == e.Linkname
	case typeChar, typeBlock:
		return h.major == e.Major && h.minor == e.Minor
	}
	return true
}

// onlyOwn tells whether fields that the type has not are empty.
func (e *tocEntry) onlyOwn(h *header) bool {
	isReg, isLink := h.typ == typeReg, h.typ == typeLink || h.typ == typeSymlink
	isDevice := h.typ == typeChar || h.typ == typeBlock
	switch {
	case !isReg && (e.Size != 0 || e.Digest != "" || e.ChunkOffset != 0 || e.ChunkSize != 0 || e.ChunkDigest != "" || e.ChunkType != ""):
		return false
	case !isLink && e.Linkname != "", !isDevice && (e.Major != 0 || e.Minor != 0):
		return false
	}
	return true
}

func (e *tocEntry) attributes(h *header) bool {
	if len(h.xattrs) != len(e.Xattrs) {
		return false
	}
	for _, x := range h.xattrs {
		if v, ok := e.Xattrs[x.name]; !ok || string(v) != string(x.value) {
			return false
		}
	}
	return true
}
