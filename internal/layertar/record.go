package layertar

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"
)

// maxSegment bounds one raw segment of a record; longer ones are split.
const maxSegment = 1 << 20

// recorder writes a tar-split record (format.md §2.7): gzip of JSON lines,
// raw segments (type 2) and files (type 1) in stream order. A nil recorder
// records nothing. It is used by one goroutine.
type recorder struct {
	zw      *gzip.Writer
	pending []byte
	line    []byte
	pos     int
}

func newRecorder(w io.Writer) (*recorder, error) {
	if w == nil {
		return nil, nil //nolint:nilnil // a nil recorder records nothing
	}
	zw, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	return &recorder{zw: zw}, nil
}

// raw adds bytes to the segment that is being gathered.
func (r *recorder) raw(b []byte) error {
	if r == nil {
		return nil
	}
	for len(b) > 0 {
		n := min(len(b), maxSegment-len(r.pending))
		r.pending = append(r.pending, b[:n]...)
		b = b[n:]
		if len(r.pending) == maxSegment {
			if err := r.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *recorder) flush() error {
	if len(r.pending) == 0 {
		return nil
	}
	l := append(r.line[:0], `{"type":2,"payload":"`...)
	l = base64.StdEncoding.AppendEncode(l, r.pending)
	l = append(l, '"')
	r.pending = r.pending[:0]
	return r.end(l)
}

// end closes a line with its position.
func (r *recorder) end(l []byte) error {
	l = append(l, `,"position":`...)
	l = strconv.AppendInt(l, int64(r.pos), 10)
	l = append(l, "}\n"...)
	r.pos++
	r.line = l
	_, err := r.zw.Write(l)
	return err
}

// file adds a member whose content stands in the layer's directory; with size
// 0 nothing of it is read back.
func (r *recorder) file(name string, size int64, crc uint64) error {
	if r == nil {
		return nil
	}
	if err := r.flush(); err != nil {
		return err
	}
	l := append(r.line[:0], `{"type":1,`...)
	if utf8.ValidString(name) {
		quoted, err := json.Marshal(name)
		if err != nil {
			return err
		}
		l = append(append(l, `"name":`...), quoted...)
	} else {
		l = append(l, `"name_raw":"`...)
		l = base64.StdEncoding.AppendEncode(l, []byte(name))
		l = append(l, '"')
	}
	if size > 0 {
		l = append(l, `,"size":`...)
		l = strconv.AppendInt(l, size, 10)
		l = append(l, `,"payload":"`...)
		var sum [8]byte
		binary.BigEndian.PutUint64(sum[:], crc)
		l = base64.StdEncoding.AppendEncode(l, sum[:])
		l = append(l, '"')
	} else {
		l = append(l, `,"payload":null`...)
	}
	return r.end(l)
}

// close ends the record; the writer below stays open.
func (r *recorder) close() error {
	if r == nil {
		return nil
	}
	if err := r.flush(); err != nil {
		return err
	}
	return r.zw.Close()
}
