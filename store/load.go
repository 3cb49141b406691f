package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/lockfile"
)

// maxFile bounds a record file, in bytes: a larger one counts as damaged.
const maxFile = 512 << 20

// readChunk is how much of a record file is read by one call, in bytes.
const readChunk = 64 << 10

// fileStamp tells one version of a file from another. The zero fileStamp is
// that of a missing file.
type fileStamp struct {
	ino   uint64
	size  int64
	mtime int64 // nanoseconds since 1970
}

func (f fileStamp) time() time.Time {
	if f == (fileStamp{}) {
		return time.Time{}
	}
	return time.Unix(0, f.mtime)
}

func stampOf(st *unix.FileStat) fileStamp {
	return fileStamp{st.Ino, st.Size, st.Mtime}
}

// stampPath stats path; a missing file, or folder on the way, is no error.
func stampPath(path string) (fileStamp, error) {
	st, err := unix.Stat(path)
	switch {
	case err == nil:
		return stampOf(&st), nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return fileStamp{}, nil
	}
	return fileStamp{}, &fs.PathError{Op: "stat", Path: path, Err: err}
}

// kindStamp tells one version of a kind's files from another.
type kindStamp struct {
	token lockfile.Token
	own   [numFiles]fileStamp
	// images is the token of a separate image store's layers.
	images lockfile.Token
}

// readText reads a record file whole. The stamp is that of the file read.
// Errors are those of a file that exists but cannot be read.
func readText(path string) (_ string, _ fileStamp, err error) {
	f, stamp, err := openText(path)
	if f == nil {
		return "", stamp, err
	}
	defer func() { err = also(err, f.Close()) }()
	text, err := textOf(f, stamp.size)
	return text, stamp, err
}

// openText opens a record file; nil without error when it is missing.
func openText(path string) (*os.File, fileStamp, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, fileStamp{}, nil
	}
	if err != nil {
		return nil, fileStamp{}, err
	}
	st, err := unix.StatFile(f)
	if err != nil {
		return nil, fileStamp{}, also(fmt.Errorf("stat %s: %w", path, err), f.Close())
	}
	stamp := stampOf(&st)
	if st.Type() != unix.S_IFREG || st.Size > maxFile {
		err := errno.New(errno.ErrDamaged, "%s is no regular file of at most %d bytes; move it away to go on without it", path, maxFile)
		return nil, stamp, also(err, f.Close())
	}
	return f, stamp, nil
}

// textOf reads a file of about size bytes from where it stands.
func textOf(f *os.File, size int64) (string, error) {
	var b strings.Builder
	b.Grow(int(size))
	buf := make([]byte, min(size+1, readChunk))
	if _, err := io.CopyBuffer(&b, io.LimitReader(f, maxFile), buf); err != nil {
		return "", fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return b.String(), nil
}

// parsed is what one record file holds.
type parsed[R any] struct {
	list   []R
	opaque []opaque
	broken error // why the rest of the file cannot be read
}

// parser turns the text of a record file into records. old are the records of
// the file's former version, in order; those with the same text are used again,
// so that what did not change keeps its identity and costs nothing.
type parser[R record[R]] struct {
	kind   Kind
	path   string
	decode func(*scanner) (R, error)
	old    []R
	oldID  map[string]R
	next   int // index into old of the record expected next
	from   int // the length from which on a text is decoded by two goroutines
	out    parsed[R]
}

func (p *parser[R]) parse(text string) parsed[R] {
	s := scanner{s: text, seen: new(seen)}
	if c := s.peek(); c == 0 && s.i == len(text) {
		return p.out // an empty file holds nothing
	}
	if strings.TrimSpace(text) == "null" {
		return p.out
	}
	p.out.list = make([]R, 0, len(p.old)+len(text)/700)
	var err error
	if len(p.old) == 0 && len(text) >= p.from && runtime.GOMAXPROCS(0) > 1 {
		err = p.halves(&s)
	} else {
		_, err = p.elements(&s, 0)
	}
	if err == nil {
		err = s.end()
	}
	if err != nil {
		p.out.broken = errno.New(errno.ErrDamaged, "%s is damaged (%v): %ss are read-only until it is repaired, and those after that place are not shown", p.path, err, p.kind)
	}
	return p.out
}

// halvesFrom is the usual parser.from, in bytes.
const halvesFrom = 128 << 10

// recordBegins is how the text between two records mostly is. It may also be
// inside of a record, so it is only a guess.
const recordBegins = `},{"id":`

// halves is elements, with the second half decoded at the same time from a
// place that may be the beginning of an element. If the first half comes to
// that very place, it was; else what was decoded from it is dropped. s is left
// where the decoding ended.
func (p *parser[R]) halves(s *scanner) error {
	half := len(s.s) / 2
	at := strings.Index(s.s[half:], recordBegins)
	if at < 0 {
		_, err := p.elements(s, 0)
		return err
	}
	at += half + len("},")
	second := parser[R]{kind: p.kind, path: p.path, decode: p.decode}
	ahead := scanner{s: s.s, i: at, seen: new(seen)}
	done := make(chan error, 1)
	go func() {
		_, err := second.rest(&ahead, 0)
		done <- err
	}()
	met, err := p.elements(s, at)
	aheadErr := <-done
	if !met {
		return err
	}
	p.out.list = append(p.out.list, second.out.list...)
	p.out.opaque = append(p.out.opaque, second.out.opaque...)
	s.i = ahead.i
	return aheadErr
}

// elements is scanner.array with the short cut of known texts. It ends at the
// byte stop, if an element begins there, and tells so; 0 is no such place.
func (p *parser[R]) elements(s *scanner, stop int) (met bool, err error) {
	if !s.eat('[') {
		return false, s.fail("no array")
	}
	if s.eat(']') {
		return false, nil
	}
	return p.rest(s, stop)
}

// rest is elements from the beginning of an element on.
func (p *parser[R]) rest(s *scanner, stop int) (met bool, err error) {
	for {
		if s.space(); s.i == stop && stop > 0 {
			return true, nil
		}
		if !p.again(s) {
			if err := p.fresh(s); err != nil {
				return false, err
			}
		}
		if s.eat(']') {
			return false, nil
		}
		if !s.eat(',') {
			return false, s.fail("no comma or bracket")
		}
	}
}

// again takes a former record whose very text comes next: the expected one,
// or the one after it (when one was removed).
func (p *parser[R]) again(s *scanner) bool {
	for skip := range 2 {
		if p.next+skip >= len(p.old) {
			return false
		}
		o := p.old[p.next+skip]
		if raw := o.m().raw; raw != "" && !o.m().trimmed && strings.HasPrefix(s.s[s.i:], raw) {
			p.out.list = append(p.out.list, o)
			p.next += skip + 1
			s.i += len(raw)
			return true
		}
	}
	return false
}

// fresh decodes an element that is new, changed or moved. Its parts stay parts
// of the text when all elements are new; else they are copied, so that one
// record does not hold on to the text of a whole file.
func (p *parser[R]) fresh(s *scanner) error {
	start := s.i
	if len(p.old) == 0 && s.peek() == '{' {
		r, err := p.decode(s)
		if err == nil {
			p.keep(r)
		}
		return err
	}
	if _, err := s.value(1); err != nil {
		return err
	}
	raw := strings.Clone(s.s[start:s.i])
	r, err := p.decode(&scanner{s: raw})
	if err != nil {
		p.out.opaque = append(p.out.opaque, opaque{raw: raw, why: "it is no object"})
		return nil
	}
	p.keep(r)
	return nil
}

// keep takes a decoded element as a record, if it can be one.
func (p *parser[R]) keep(r R) {
	if why := unsafeID(r.id()); why != "" {
		p.out.opaque = append(p.out.opaque, opaque{raw: r.m().raw, id: r.id(), why: why})
		return
	}
	if p.next < len(p.old) && p.old[p.next].id() == r.id() {
		p.next++
	}
	p.out.list = append(p.out.list, p.known(r))
}

// known returns the former record when r says just the same, and otherwise
// dates the change.
func (p *parser[R]) known(r R) R {
	o, ok := p.oldID[r.id()]
	if !ok {
		return r
	}
	if o.m().raw == r.m().raw && !o.m().trimmed && o.m().origin() == r.m().origin() {
		return o
	}
	if o.m().raw == r.m().raw {
		r.m().changed = o.m().changed
	} else {
		r.m().changed = time.Now()
	}
	return r
}
