package layertar

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"time"

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
	c := tocCheck{in: bounded, dec: json.NewDecoder(bounded), p: &parser{in: pr, raw: func([]byte) {}, lim: Limits{}.withDefaults()}}
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
	in  *boundedReader
	dec *json.Decoder
	p   *parser
}

// run compares everything; any error means that the table is none of this
// stream.
func (c *tocCheck) run() error {
	if err := c.delim('{'); err != nil {
		return err
	}
	seen := false
	for c.more() {
		key, err := c.dec.Token()
		if err != nil {
			return err
		}
		switch {
		case key != "entries":
			var skip json.RawMessage
			if err := c.value(&skip); err != nil {
				return err
			}
		case seen:
			return errTOC
		default:
			seen = true
			if err := c.entries(); err != nil {
				return err
			}
		}
	}
	if !seen {
		return errTOC
	}
	return c.delim('}')
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
	for c.more() {
		var e tocEntry
		if err := c.value(&e); err != nil {
			return err
		}
		if e.Type == "chunk" {
			continue
		}
		h, err := c.p.next()
		if err != nil { // the stream ends first
			return err
		}
		if !e.describes(h) {
			return errTOC
		}
		if err := c.content(&e); err != nil {
			return err
		}
	}
	if _, err := c.p.next(); err != io.EOF { //nolint:errorlint // next returns it bare
		return errTOC
	}
	return c.delim(']')
}

// content compares a file's digest; an empty file need have none.
func (c *tocCheck) content(e *tocEntry) error {
	if e.Type != "reg" || (e.Size == 0 && e.Digest == "") {
		return nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, c.p); err != nil {
		return err
	}
	if digest.NewDigest(digest.SHA256, h) != e.Digest {
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
	return e.special(h) && e.attributes(h)
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
