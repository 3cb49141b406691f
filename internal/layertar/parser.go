package layertar

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"strings"

	"github.com/plyfs/plyfs/internal/errno"
)

// parser decodes a decompressed stream into members. It is used by one
// goroutine. Everything that it reads and does not hand out as a member's
// content goes to raw, in order.
type parser struct {
	in  io.Reader
	raw func(b []byte)
	// pieces is in without a copy.
	pieces func(limit int64) (piece, error)
	lim    Limits

	off     int64 // bytes read of the decompressed stream
	left    int64 // of the current member's stored data
	pad     int64 // after it
	entries int64
	cur     *header
	// member is true from a member's first header byte to the end of its
	// padding. Only the parser's goroutine uses it; Push sees a copy taken
	// when the parser waits for input.
	member bool
	ended  bool // the two zero blocks were seen
}

// bad is a broken stream: an ErrBadStream with the words that scripts look
// for, the member and its offset.
func (p *parser) bad(h *header, reason string) error {
	return errno.New(errno.ErrBadStream, "invalid tar header: %s in %s", reason, where(h))
}

// refuse is a stream that is well formed and not wanted.
func refuse(h *header, reason string) error {
	return errno.New(errno.ErrBadStream, "%s: %s", where(h), reason)
}

func where(h *header) string { return memberName(h.name, h.offset) }

// ioError turns a read's error into a stream's.
func (p *parser) ioError(err error, h *header) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errno.New(errno.ErrBadStream, "unexpected EOF: the stream ends at byte %d, inside %s", p.off, where(h))
	}
	var limit *limitError
	if errors.As(err, &limit) {
		return errno.New(errno.ErrBadStream, "%s: %w", where(h), limit.err)
	}
	return err
}

// readBlock reads one raw block that belongs to h.
func (p *parser) readBlock(b *block, h *header) error {
	n, err := io.ReadFull(p.in, b[:])
	p.off += int64(n)
	if err != nil {
		return p.ioError(err, h)
	}
	p.raw(b[:])
	return nil
}

// next returns the next member, or io.EOF after the last one, when the rest
// of the stream has gone to raw.
func (p *parser) next() (*header, error) {
	if err := p.skip(); err != nil {
		return nil, err
	}
	p.member = false
	h := &header{offset: p.off}
	p.cur = h
	var ext extensions
	for {
		var b block
		done, err := p.firstBlock(&b, h)
		if err != nil {
			return nil, err
		}
		if done {
			return nil, io.EOF
		}
		if reason := b.decode(h); reason != "" {
			return nil, p.bad(h, reason)
		}
		if !isExtension(h.typ) {
			return p.finish(&b, h, ext)
		}
		typ := h.typ
		text, err := p.special(h)
		switch {
		case err != nil:
			return nil, err
		case typ == typeGlobal: // a thing of its own, not the next member's
			if reason := global(text); reason != "" {
				return nil, p.bad(h, reason)
			}
			ext, h, p.member = extensions{}, &header{offset: p.off}, false
			p.cur = h
		case !ext.add(typ, text):
			return nil, p.bad(h, "PAX header is malformed")
		}
	}
}

// extensions are what headers before a member's own say of it.
type extensions struct {
	pax                []paxRecord
	longName, longLink string
}

func isExtension(typ byte) bool {
	return typ == typePax || typ == typeGlobal || typ == typeLongName || typ == typeLongLn
}

// global judges the content of a global header, which has no effect here.
func global(text []byte) (reason string) {
	recs, ok := parsePax(text)
	if !ok {
		return "PAX header is malformed"
	}
	return (&header{}).merge(recs, &sparseInfo{})
}

// add takes an extension's content; false when it is malformed.
func (e *extensions) add(typ byte, text []byte) (ok bool) {
	switch typ {
	case typePax:
		e.pax, ok = parsePax(text)
		return ok
	case typeLongName:
		e.longName = str(text)
	case typeLongLn:
		e.longLink = str(text)
	}
	return true
}

// firstBlock reads a header block. done is true at the end of the archive:
// two zero blocks, or the end of the stream on a boundary between members.
func (p *parser) firstBlock(b *block, h *header) (done bool, err error) {
	n, err := io.ReadFull(p.in, b[:])
	p.off += int64(n)
	if err == io.EOF && !p.member {
		return true, nil
	}
	if err != nil {
		return false, p.ioError(err, h)
	}
	p.raw(b[:])
	if b.isZero() {
		if p.member {
			return false, p.bad(h, "an extension without its member")
		}
		return true, p.trailer(h)
	}
	p.member = true
	if !b.sumOK() {
		return false, p.bad(h, "checksum mismatch")
	}
	return false, nil
}

// trailer reads what follows the first zero block: another one, then
// anything, which is kept as it is.
func (p *parser) trailer(h *header) error {
	var b block
	n, err := io.ReadFull(p.in, b[:])
	p.off += int64(n)
	if err == io.EOF {
		p.ended = true
		return nil
	}
	if err != nil {
		return p.ioError(err, h)
	}
	if !b.isZero() {
		return p.bad(h, "a single zero block and then more")
	}
	p.raw(b[:])
	p.ended = true
	buf := make([]byte, 32<<10)
	for {
		n, err := p.in.Read(buf)
		p.off += int64(n)
		p.raw(buf[:n])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return p.ioError(err, h)
		}
	}
}

// special reads the content of a PAX header or GNU long name, all raw.
func (p *parser) special(h *header) ([]byte, error) {
	n := h.stored
	if n < 0 || over(n, p.lim.Header) {
		return nil, refuse(h, "its extended header is larger than the limit")
	}
	var out bytes.Buffer
	padded := (n + blockSize - 1) / blockSize * blockSize
	for left := padded; left > 0; left -= blockSize {
		var b block
		if err := p.readBlock(&b, h); err != nil {
			return nil, err
		}
		out.Write(b[:min(n, blockSize)])
		n -= min(n, blockSize)
	}
	return out.Bytes(), nil
}

func over(n, limit int64) bool { return limit >= 0 && n > limit }

// finish puts block, PAX records and long names together and judges sizes.
func (p *parser) finish(b *block, h *header, ext extensions) (*header, error) {
	var sp sparseInfo
	if reason := h.merge(ext.pax, &sp); reason != "" {
		return nil, p.bad(h, reason)
	}
	// GNU's long names count, wherever they stand, as in the peers.
	h.name, h.link = cmp.Or(ext.longName, h.name), cmp.Or(ext.longLink, h.link)
	if h.typ == typeRegA || h.typ == typeCont {
		h.typ = typeReg
		if b[offType] == typeRegA && strings.HasSuffix(h.name, "/") {
			h.typ = typeDir
		}
	}
	if !hasData(h.typ) {
		h.stored = 0
	}
	if h.stored < 0 {
		return nil, p.bad(h, "negative size")
	}
	h.size = h.stored
	p.pad = -h.stored & (blockSize - 1)
	if err := p.sparse(b, h, &sp); err != nil {
		return nil, err
	}
	p.left = h.stored
	if p.entries++; over(p.entries, p.lim.Entries) {
		return nil, refuse(h, "the stream has more members than the limit")
	}
	if over(h.size, p.lim.FileSize) {
		return nil, refuse(h, "the file is larger than the limit")
	}
	return h, nil
}

func (p *parser) sparse(b *block, h *header, sp *sparseInfo) error {
	var err error
	switch {
	case h.typ == typeSparse && string(b.field(offMagic, 8)) == magicGNU:
		err = p.gnuSparse(b, h)
	default:
		err = p.paxSparse(h, sp)
	}
	if err != nil || !h.isSparse {
		return err
	}
	if reason := checkSparse(h.sparse, h.size, h.stored); reason != "" {
		return p.bad(h, reason)
	}
	return nil
}

// Read reads the current member's stored data; it goes to raw only for a
// sparse member, whose file cannot give it back.
func (p *parser) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	if int64(len(b)) > p.left {
		b = b[:p.left]
	}
	n, err := p.in.Read(b)
	p.off += int64(n)
	p.left -= int64(n)
	if p.cur.isSparse {
		p.raw(b[:n])
	}
	if err != nil && (p.left > 0 || !errors.Is(err, io.EOF)) {
		return n, p.ioError(err, p.cur)
	}
	return n, nil
}

// piece is Read without a copy, for at most limit bytes; the caller releases
// it. There must be data left.
func (p *parser) piece(limit int64) (piece, error) {
	d, err := p.pieces(min(limit, p.left))
	if err != nil {
		return d, p.ioError(err, p.cur)
	}
	p.off += int64(len(d.b))
	p.left -= int64(len(d.b))
	if p.cur.isSparse {
		p.raw(d.b)
	}
	return d, nil
}

// skipData passes over what is left of the current member's data, all raw: the
// file that was made, if any, cannot give it back.
func (p *parser) skipData() error {
	if p.left == 0 {
		return nil
	}
	buf := make([]byte, 32<<10)
	for p.left > 0 {
		n, err := p.Read(buf)
		if !p.cur.isSparse {
			p.raw(buf[:n])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// skip passes over the rest of the current member and its padding.
func (p *parser) skip() error {
	if err := p.skipData(); err != nil || p.pad == 0 {
		return err
	}
	var buf block
	n, err := io.ReadFull(p.in, buf[:p.pad])
	p.off += int64(n)
	p.pad = 0
	if err != nil {
		return p.ioError(err, p.cur)
	}
	p.raw(buf[:n])
	return nil
}
