package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/lockfile"
)

// part is one kind's records in a state: the texts of its files until somebody
// asks for a record, then the records. Decoding takes no lock and reads no
// file, so what is decoded late is of the same moment as the rest of its
// state. A part of a published state is immutable but for that.
type part[R record[R]] struct {
	once   sync.Once
	decode func() decoded[R] // nil once it is decoded; of once
	val    decoded[R]        // valid after once
	done   atomic.Bool       // once has run
	// flagged tells that there may be records flagged incomplete.
	flagged bool
}

// decoded is what the files of a kind say.
type decoded[R record[R]] struct {
	set *set[R]
	// broken says why a file could not be read whole; the kind is then
	// read-only.
	broken error
	// modified is when the set of objects or names last changed.
	modified time.Time
}

// anyDecoded is decoded without its type, for who has it alone.
type anyDecoded interface {
	date(at time.Time)
	mend()
}

func (d *decoded[R]) date(at time.Time) { d.modified = at }
func (d *decoded[R]) mend()             { d.broken = nil }

// known returns a part that holds these records.
func known[R record[R]](d decoded[R]) *part[R] {
	return &part[R]{val: d, flagged: true}
}

func (p *part[R]) get() *decoded[R] {
	p.once.Do(func() {
		if p.decode != nil {
			p.val, p.decode = p.decode(), nil
		}
		p.done.Store(true)
	})
	return &p.val
}

// asked tells whether anybody has wanted to know a record.
func (p *part[R]) asked() bool { return p.done.Load() }

func (p *part[R]) records() *set[R]    { return p.get().set }
func (p *part[R]) objects() objects    { return p.get().set }
func (p *part[R]) broken() error       { return p.get().broken }
func (p *part[R]) modified() time.Time { return p.get().modified }

// incomplete returns the IDs of own records that a dead writer left half made.
func (p *part[R]) incomplete() []string {
	if !p.flagged {
		return nil
	}
	return p.records().incomplete()
}

// anyPart is a part without its type.
type anyPart interface {
	objects() objects
	broken() error
	modified() time.Time
	asked() bool
	incomplete() []string
}

func (st *state) part(k Kind) anyPart {
	switch k {
	case KindLayer:
		return st.layers
	case KindImage:
		return st.images
	}
	return st.containers
}

// of returns the records of kind k.
func (st *state) of(k Kind) objects { return st.part(k).objects() }

// loadKind reads the files of kind k, whose lock is held for reading or
// writing, into next. now is the stamp's token, read under that lock.
func (s *Store) loadKind(next *state, k Kind, token lockfile.Token) error {
	var err error
	switch k {
	case KindLayer:
		next.layers, err = loadPart(s, &next.kinds[k], k, next.layers, decodeLayer, token)
	case KindImage:
		next.images, err = loadPart(s, &next.kinds[k], k, next.images, decodeImage, token)
	case KindContainer:
		next.containers, err = loadPart(s, &next.kinds[k], k, next.containers, decodeContainer, token)
	}
	return err
}

// fileText is a record file as it was when it was loaded.
type fileText struct {
	path   string
	from   origin
	text   string
	late   *lateText // in place of text, unless nil
	broken error     // why there is no text
}

// lateText is the text of a file that is read when it is needed. Files are
// replaced by renames, so one that is open stays what it was.
type lateText struct {
	file *os.File
	size int64
}

// lateFrom is the length from which on a brief store reads a text late, in
// bytes: the memory for it costs more than to look through it twice.
const lateFrom = 64 << 10

// lateTexts are the files that are open so, to be closed with the store.
type lateTexts struct {
	mu    sync.Mutex // a leaf
	files []*os.File // guarded by mu
}

func (l *lateTexts) add(f *os.File) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files = append(l.files, f)
}

// close closes those that were not read.
func (l *lateTexts) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, f := range l.files {
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	l.files = nil
	return errors.Join(errs...)
}

// read reads the text and closes the file.
func (l *lateText) read() (_ string, err error) {
	defer func() { err = also(err, l.file.Close()) }()
	if _, err := l.file.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("read %s: %w", l.file.Name(), err)
	}
	return textOf(l.file, l.size)
}

// loadPart reads the files of a kind; what they hold is decoded when it is
// first asked for.
func loadPart[R record[R]](s *Store, ks *kindState, k Kind, old *part[R], decode func(*scanner) (R, error), token lockfile.Token) (*part[R], error) {
	ks.stamp.token = token
	p := new(part[R])
	var own [numFiles]fileText
	for file, path := range s.paths[k].own {
		if path == "" {
			continue
		}
		var err error
		var flagged bool
		own[file], ks.stamp.own[file], flagged, err = s.loadOwn(k, path, origin{file: file})
		if err != nil {
			return nil, err
		}
		p.flagged = p.flagged || flagged
	}
	shadows := make([]fileText, len(s.paths[k].shadows))
	ks.shadows = make([]fileStamp, len(shadows))
	for i, path := range s.paths[k].shadows {
		var err error
		shadows[i], ks.shadows[i], err = loadText(k, path, origin{shadow: i + 1})
		if err != nil {
			s.log.WithError(err).Warnf("additional image store: %s cannot be read", path)
		}
	}
	times := *ks
	p.decode = func() decoded[R] { return decodePart(k, old.get(), own, shadows, decode, &times) }
	return p, nil
}

// loadOwn is loadText, and tells whether the file can hold the flag incomplete,
// which may be spelt with escapes. A brief store reads no more of a long file
// than it takes to know that, and keeps it open.
func (s *Store) loadOwn(k Kind, path string, from origin) (f fileText, stamp fileStamp, flagged bool, err error) {
	if s.opts.Brief {
		file, stamp, err := openText(path)
		if err == nil && file != nil && stamp.size >= lateFrom {
			if flagged, err := mayFlag(file); err == nil && !flagged {
				s.late.add(file)
				return fileText{path: path, from: from, late: &lateText{file, stamp.size}}, stamp, false, nil
			}
		}
		if file != nil {
			err = file.Close()
		}
		if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errno.ErrDamaged) {
			return f, stamp, false, err
		}
	}
	f, stamp, err = loadText(k, path, from)
	if err == nil {
		flagged, err = mayFlag(strings.NewReader(f.text))
	}
	return f, stamp, flagged, err
}

// rareTail is flagIncomplete without its first letter: the first byte is what
// is looked for, and i is in every word of a record.
const rareTail = "ncomplete"

// mayFlag tells whether a text can hold the flag incomplete.
func mayFlag(from io.Reader) (bool, error) {
	buf := make([]byte, readChunk)
	kept := 0 // bytes of the last chunk in which the word may begin
	for {
		n, err := from.Read(buf[kept:])
		b := buf[:kept+n]
		if bytes.Contains(b, []byte(rareTail)) || bytes.Contains(b, []byte(`\u`)) {
			return true, nil
		}
		kept = copy(buf, b[max(0, len(b)-len(rareTail)+1):])
		switch {
		case errors.Is(err, io.EOF):
			return false, nil
		case err != nil:
			return false, err
		}
	}
}

func decodePart[R record[R]](k Kind, old *decoded[R], own [numFiles]fileText, shadows []fileText, decode func(*scanner) (R, error), ks *kindState) decoded[R] {
	var d decoded[R]
	var ours [numFiles]parsed[R]
	for file, f := range own {
		if f.path == "" {
			continue
		}
		ours[file] = parseFile(k, f, old.set, decode)
		d.broken = errors.Join(d.broken, ours[file].broken)
	}
	theirs := make([]parsed[R], len(shadows))
	for i, f := range shadows {
		theirs[i] = parseFile(k, f, old.set, decode)
	}
	d.set = merge(k, ours, theirs)
	d.modified = modifiedAt(old, d.set, ks)
	return d
}

// origin says which file a record comes from.
type origin struct{ file, shadow int }

// loadText reads a record file. The error is that of one that may not be read.
func loadText(k Kind, path string, from origin) (fileText, fileStamp, error) {
	text, stamp, err := readText(path)
	f := fileText{path: path, from: from, text: text}
	if errors.Is(err, fs.ErrPermission) {
		return f, stamp, err
	}
	if err != nil {
		f.broken = unreadable(k, err)
	}
	return f, stamp, nil
}

func unreadable(k Kind, err error) error {
	return errno.New(errno.ErrDamaged, "%ss are read-only and not shown: %w", k, err)
}

// parseFile decodes a file's records; old are those that were known before.
func parseFile[R record[R]](k Kind, f fileText, old *set[R], decode func(*scanner) (R, error)) parsed[R] {
	if f.late != nil {
		var err error
		if f.text, err = f.late.read(); err != nil {
			f.broken = unreadable(k, err)
		}
	}
	if f.broken != nil {
		return parsed[R]{broken: f.broken}
	}
	p := parser[R]{kind: k, path: f.path, oldID: old.byID, from: halvesFrom}
	for _, r := range old.list {
		if r.m().origin() == f.from {
			p.old = append(p.old, r)
		}
	}
	p.decode = func(at *scanner) (R, error) {
		r, err := decode(at)
		if err == nil {
			r.settle(f.from)
		}
		return r, err
	}
	return p.parse(f.text)
}

// modifiedAt dates the last change to the set of objects and names: the
// newest file's time when it changed, else what is known already.
func modifiedAt[R record[R]](old *decoded[R], now *set[R], ks *kindState) time.Time {
	newest := ks.stamp.own[0].time()
	for _, f := range append(ks.stamp.own[1:], ks.shadows...) {
		if t := f.time(); t.After(newest) {
			newest = t
		}
	}
	if old.modified.IsZero() || !sameNames(old.set, now) {
		return newest
	}
	return old.modified
}

// sameNames tells whether two sets hold the same IDs and names.
func sameNames[R record[R]](a, b *set[R]) bool {
	if len(a.byID) != len(b.byID) || len(a.byName) != len(b.byName) {
		return false
	}
	for id := range a.byID {
		if _, ok := b.byID[id]; !ok {
			return false
		}
	}
	for name, r := range a.byName {
		if o, ok := b.byName[name]; !ok || o.id() != r.id() {
			return false
		}
	}
	return true
}
