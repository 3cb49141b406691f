package layertar

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/plyfs/plyfs/internal/spill"
)

// MemberNames lets tests run the parser alone.
func MemberNames(r io.Reader, lim Limits) ([]string, error) {
	p := &parser{in: r, raw: func([]byte) {}, lim: lim.withDefaults()}
	var names []string
	for {
		h, err := p.next()
		if err == io.EOF { //nolint:errorlint // next returns it bare
			return names, nil
		}
		if err != nil {
			return nil, err
		}
		names = append(names, h.name)
	}
}

// Members is MemberNames with what else the parser makes of each, and its content.
func Members(r io.Reader, lim Limits) ([]string, error) {
	p := &parser{in: r, raw: func([]byte) {}, lim: lim.withDefaults()}
	var out []string
	for {
		h, err := p.next()
		if err == io.EOF { //nolint:errorlint // next returns it bare
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(p)
		if err != nil {
			return nil, err
		}
		if h.isSparse {
			file := make([]byte, h.size)
			for _, e := range h.sparse {
				copy(file[e.off:e.off+e.len], data)
				data = data[e.len:]
			}
			data = file
		}
		out = append(out, fmt.Sprintf("%q %q %c %d %d:%d %d %x", h.name, h.link, h.typ, h.size, h.uid, h.gid, h.mtime.UnixNano(), sha256.Sum256(data)))
	}
}

// GenerateWith is Generate with a function that is called with each path that
// is about to be written.
func GenerateWith(w io.Writer, s Source, before func(path string)) error {
	g := newGenerator(w, &s)
	err := walkSource(context.Background(), &s, askDirs|askSpecial, func(e *event) error {
		before(e.path)
		return g.event(e)
	}, nil)
	if err == nil {
		err = g.end()
	}
	return errors.Join(err, g.links.Close())
}

// WalkFiles is the walk of Size, which stats no directory; with dirs that of
// Changes.
func WalkFiles(s Source, dirs bool, yield func(path string)) error {
	ask := askFiles
	if dirs {
		ask = askKinds
	}
	return walkSource(context.Background(), &s, ask, func(e *event) error {
		yield(e.path)
		return nil
	}, nil)
}

// ChangesAlone, SizeAlone and GenerateAlone are made by one goroutine.
func ChangesAlone(s Source, yield func(Change) error) error {
	c := changes{yield: yield}
	return walkSource(context.Background(), &s, askKinds|askShown, c.event, nil)
}

// ChangesOfAll is ChangesAlone where each directory is compared with that below,
// also those to which something was added.
func ChangesOfAll(s Source, yield func(Change) error) error {
	c := changes{yield: yield}
	return walkSource(context.Background(), &s, askKinds, c.event, nil)
}

// SizeAlone is documented with ChangesAlone.
func SizeAlone(s Source) (int64, error) {
	c := sizes{links: spill.NewLinks()}
	err := walkSource(context.Background(), &s, askFiles, c.event, nil)
	return c.total, errors.Join(err, c.links.Close())
}

// GenerateAlone is documented with ChangesAlone.
func GenerateAlone(w io.Writer, s Source) error {
	return GenerateWith(w, s, func(string) {})
}
