// Package layertartest makes streams for tests.
package layertartest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// Entry is one line of a table of contents.
type Entry struct {
	Type     string            `json:"type"`
	Name     string            `json:"name"`
	Linkname string            `json:"linkName,omitempty"`
	Mode     int64             `json:"mode,omitempty"`
	Size     int64             `json:"size,omitempty"`
	UID      int               `json:"uid,omitempty"`
	GID      int               `json:"gid,omitempty"`
	Modtime  time.Time         `json:"modtime"`
	Major    int64             `json:"devMajor,omitempty"`
	Minor    int64             `json:"devMinor,omitempty"`
	Xattrs   map[string][]byte `json:"xattrs,omitempty"`
	Digest   string            `json:"digest,omitempty"`
}

// Entries are the true table of contents of a tar.
func Entries(t testing.TB, stream []byte) (out []Entry) {
	t.Helper()
	types := map[byte]string{
		tar.TypeReg: "reg", tar.TypeLink: "hardlink", tar.TypeSymlink: "symlink",
		tar.TypeChar: "char", tar.TypeBlock: "block", tar.TypeDir: "dir", tar.TypeFifo: "fifo",
	}
	for r := tar.NewReader(bytes.NewReader(stream)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		e := Entry{
			Type: types[h.Typeflag], Name: h.Name, Linkname: h.Linkname, Mode: h.Mode, Size: h.Size, UID: h.Uid, GID: h.Gid,
			Modtime: h.ModTime, Major: h.Devmajor, Minor: h.Devminor,
		}
		for k, v := range h.PAXRecords {
			if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
				if e.Xattrs == nil {
					e.Xattrs = map[string][]byte{}
				}
				e.Xattrs[name] = []byte(v)
			}
		}
		if h.Typeflag == tar.TypeReg {
			sum := sha256.New()
			if _, err := io.Copy(sum, r); err != nil {
				t.Fatal(err)
			}
			e.Digest = digest.NewDigest(digest.SHA256, sum).String()
		}
		out = append(out, e)
	}
}

// Table is the JSON of a table of contents.
func Table(t testing.TB, entries []Entry) []byte {
	t.Helper()
	b, err := json.Marshal(struct {
		Version int     `json:"version"`
		Entries []Entry `json:"entries"`
	}{1, entries})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Chunked makes a zstd:chunked stream of a tar, in two frames, and a table of
// contents, and returns it with the table's digest.
func Chunked(t testing.TB, stream, table []byte) ([]byte, digest.Digest) {
	t.Helper()
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := z.Close(); err != nil {
			t.Error(err)
		}
	}()
	half := len(stream) / 2
	out := z.EncodeAll(stream[:half], nil)
	out = z.EncodeAll(stream[half:], out)
	small := z.EncodeAll(table, nil)
	out = skippable(out, small)
	at := len(out) - len(small)
	foot := make([]byte, 0, 40)
	for _, n := range []int{at, len(small), len(table), 1} {
		foot = binary.LittleEndian.AppendUint64(foot, uint64(n))
	}
	return skippable(out, append(foot, "GnUlInUx"...)), digest.FromBytes(small)
}

func skippable(to, content []byte) []byte {
	to = append(to, "\x50\x2a\x4d\x18"...)
	to = binary.LittleEndian.AppendUint32(to, uint32(len(content)))
	return append(to, content...)
}
