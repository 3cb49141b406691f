package layertar

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/spill"
)

// maxSplitLine bounds one JSON line of a record. The longest that peers write
// hold a segment of a megabyte.
const maxSplitLine = 16 << 20

// Split is an opened tar-split record. It may be used by several goroutines.
//
// Copying the stream reads the record from its beginning to its end. What asks
// for a size or for an offset reads it once before: its raw segments and file
// names go to one spool, and one entry for each segment that has a length to
// another: what stays in memory is bounded, whatever the record's size.
type Split struct {
	base string // the record's file name, for sentences
	f    *os.File

	once   sync.Once
	failed error // of the reading that once did

	data  spill.Spool // raw segments and names
	index spill.Spool // splitEntry after splitEntry
	n     int64       // entries
	size  int64       // of the stream
}

// splitEntry is one segment of the stream, splitEntrySize bytes in the index:
//
//	0       8      16      24     32     36
//	| start | size | where | crc  | name |   big endian; name 0: a raw segment
//
// where is the offset in data of the segment, or of the name of that length.
type splitEntry struct {
	start, size, where int64
	crc                uint64
	name               uint32
}

const splitEntrySize = 36

func (e *splitEntry) encode() []byte {
	var b [splitEntrySize]byte
	binary.BigEndian.PutUint64(b[0:], uint64(e.start))
	binary.BigEndian.PutUint64(b[8:], uint64(e.size))
	binary.BigEndian.PutUint64(b[16:], uint64(e.where))
	binary.BigEndian.PutUint64(b[24:], e.crc)
	binary.BigEndian.PutUint32(b[32:], e.name)
	return b[:]
}

func (s *Split) entry(i int64) (e splitEntry, err error) {
	var b [splitEntrySize]byte
	if _, err := s.index.ReadAt(b[:], i*splitEntrySize); err != nil && !errors.Is(err, io.EOF) {
		return e, fmt.Errorf("read the index of %s: %w", s.base, err)
	}
	e.start, e.size, e.where = int64(binary.BigEndian.Uint64(b[0:])), int64(binary.BigEndian.Uint64(b[8:])), int64(binary.BigEndian.Uint64(b[16:]))
	e.crc, e.name = binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint32(b[32:])
	return e, nil
}

// OpenSplit opens the record at path. That it cannot be understood is an
// ErrDamaged of whatever reads it.
func OpenSplit(path string) (*Split, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the tar-split record: %w", err)
	}
	return &Split{base: filepath.Base(path), f: f}, nil
}

func (s *Split) damaged(line int64, reason any) error {
	return errno.New(errno.ErrDamaged, "the tar-split record %s is damaged at line %d: %v; the layer's tar can no longer be given back as it was", s.base, line, reason)
}

// load makes the index, once.
func (s *Split) load() error {
	s.once.Do(func() {
		s.failed = s.lines(context.Background(), s.add)
		s.failed = errors.Join(s.failed, s.data.Seal(), s.index.Seal())
	})
	return s.failed
}

// lines calls fn with every line of the record that has a length, in bounded
// memory. What p holds is fn's until it returns.
func (s *Split) lines(ctx context.Context, fn func(p *splitParser) error) error {
	zr, err := gzip.NewReader(bufio.NewReaderSize(io.NewSectionReader(s.f, 0, math.MaxInt64), 64<<10))
	if err != nil {
		return s.damaged(0, err)
	}
	in := bufio.NewReaderSize(zr, 256<<10)
	var p splitParser
	for line, size := int64(1), int64(0); ; line++ {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		b, err := readLine(in)
		if err == io.EOF && len(b) == 0 { //nolint:errorlint // readLine returns it bare
			return nil
		}
		if err != nil && err != io.EOF { //nolint:errorlint // readLine returns it bare
			return s.damaged(line, err)
		}
		if len(bytes.TrimSpace(b)) == 0 {
			continue
		}
		if err = p.parse(b); err == nil {
			err = p.check(size)
		}
		if err != nil {
			return s.damaged(line, err)
		}
		if p.size == 0 {
			continue
		}
		size += p.size
		if err := fn(&p); err != nil {
			return err
		}
	}
}

// readLine reads up to a newline, which it leaves on, and no more than
// maxSplitLine. The bytes are valid until the next call.
func readLine(in *bufio.Reader) ([]byte, error) {
	b, err := in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return b, err
	}
	long := append([]byte(nil), b...)
	for errors.Is(err, bufio.ErrBufferFull) {
		if b, err = in.ReadSlice('\n'); len(long)+len(b) > maxSplitLine {
			return nil, fmt.Errorf("it is longer than %d bytes", maxSplitLine)
		}
		long = append(long, b...)
	}
	return long, err
}

// add appends the parsed line to the index.
func (s *Split) add(p *splitParser) error {
	e := splitEntry{start: s.size, size: p.size, where: s.data.Size(), crc: p.crc}
	text := p.payload
	if p.typ == 1 {
		text, e.name = p.name, uint32(len(p.name))
	}
	s.size += e.size
	s.n++
	return errors.Join(s.data.Append(text), s.index.Append(e.encode()))
}

// splitParser decodes one line, with its own buffers.
type splitParser struct {
	typ           int
	name, payload []byte
	size          int64
	crc           uint64
}

// check judges a line of a stream that has before bytes already.
func (p *splitParser) check(before int64) error {
	switch {
	case p.typ == 2:
		p.size = int64(len(p.payload))
	case len(p.name) == 0 && p.size > 0:
		return errors.New("a file without a name")
	}
	if p.size < 0 || before > math.MaxInt64-p.size {
		return errors.New("impossible size")
	}
	return nil
}

// parse has a short way for the lines as every writer forms them.
func (p *splitParser) parse(line []byte) error {
	if rest, ok := bytes.CutPrefix(line, []byte(`{"type":2,"payload":"`)); ok {
		if end := bytes.IndexByte(rest, '"'); end >= 0 && bytes.HasPrefix(rest[end:], []byte(`","position":`)) {
			p.typ = 2
			var err error
			p.payload, err = base64.StdEncoding.AppendDecode(p.payload[:0], rest[:end])
			return err
		}
	}
	if p.parseFile(line) {
		return nil
	}
	return p.parseJSON(line)
}

// parseFile takes `{"type":1,"name":"NAME","size":N,"payload":"SUM","position":N}`
// with a name that has nothing escaped; without a size there is no content.
func (p *splitParser) parseFile(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte(`{"type":1,"name":"`))
	end := bytes.IndexByte(rest, '"')
	if !ok || end < 0 || bytes.IndexByte(rest[:end], '\\') >= 0 || !utf8.Valid(rest[:end]) {
		return false
	}
	name, rest := rest[:end], rest[end+1:]
	p.typ, p.size, p.crc = 1, 0, 0
	if !bytes.HasPrefix(rest, []byte(`,"payload":null,"position":`)) {
		rest, ok = bytes.CutPrefix(rest, []byte(`,"size":`))
		comma := bytes.IndexByte(rest, ',')
		if !ok || comma < 0 {
			return false
		}
		size, err := strconv.ParseInt(string(rest[:comma]), 10, 64)
		rest, ok = bytes.CutPrefix(rest[comma:], []byte(`,"payload":"`))
		if err != nil || !ok || len(rest) < 13 || !bytes.HasPrefix(rest[12:], []byte(`","position":`)) {
			return false
		}
		var sum [9]byte
		if n, err := base64.StdEncoding.Decode(sum[:], rest[:12]); err != nil || n != 8 {
			return false
		}
		p.size, p.crc = size, binary.BigEndian.Uint64(sum[:])
	}
	p.name = append(p.name[:0], name...)
	return true
}

func (p *splitParser) parseJSON(line []byte) error {
	var e struct {
		Type    int    `json:"type"`
		Name    string `json:"name"`
		NameRaw []byte `json:"name_raw"`
		Size    int64  `json:"size"`
		Payload []byte `json:"payload"`
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return err
	}
	p.typ, p.size, p.crc = e.Type, e.Size, 0
	p.name = append(p.name[:0], e.Name...)
	if len(e.NameRaw) > 0 {
		p.name = append(p.name[:0], e.NameRaw...)
	}
	switch {
	case e.Type == 2:
		p.payload = append(p.payload[:0], e.Payload...)
	case e.Type != 1:
		return fmt.Errorf("unknown type %d", e.Type)
	case e.Size > 0 && len(e.Payload) != 8:
		return errors.New("a checksum that is not of eight bytes")
	case e.Size > 0:
		p.crc = binary.BigEndian.Uint64(e.Payload)
	}
	return nil
}

// Size is the exact length of the tar stream in bytes.
func (s *Split) Size() (int64, error) {
	err := s.load()
	return s.size, err
}

// Close lets go of the record. No reader of it may be used after.
func (s *Split) Close() error { return errors.Join(s.f.Close(), s.data.Close(), s.index.Close()) }

// find returns the entry that holds the stream's byte off.
func (s *Split) find(off int64) (int64, error) {
	var failed error
	i := sort.Search(int(s.n), func(i int) bool {
		e, err := s.entry(int64(i))
		if err != nil {
			failed = err
		}
		return e.start+e.size > off
	})
	return int64(i), failed
}
