package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
)

const (
	// maxMembers is how many members an archive may have.
	maxMembers = 1 << 16
	// maxDocument bounds a manifest, an index or a configuration, in bytes.
	maxDocument = 8 << 20
)

// source is where the files of images are. Names are clean and relative.
type source interface {
	has(name string) bool
	// open returns a file and its size in bytes.
	open(name string) (io.ReadCloser, int64, error)
}

// document reads a whole small file.
func document(s source, name string) (_ []byte, err error) {
	f, size, err := s.open(name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	if size > maxDocument {
		return nil, errno.New(errno.ErrTooLarge, "%s has %d bytes, the limit for a document of an image is %d", name, size, maxDocument)
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(f, size)); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// blob is the path of a digest's content in an OCI layout.
func blob(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

// verified reads a document whose digest is known.
func verified(s source, d digest.Digest, size int64) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, errno.New(errno.ErrBadStream, "%q is no digest that can be checked", clip(string(d)))
	}
	if !s.has(blob(d)) {
		return nil, missing(blob(d))
	}
	v, err := document(s, blob(d))
	if err != nil {
		return nil, err
	}
	if got := d.Algorithm().FromBytes(v); got != d || size > 0 && int64(len(v)) != size {
		return nil, errno.New(errno.ErrBadStream, "%s holds %d bytes of digest %s, not what its name promises", blob(d), len(v), got)
	}
	return v, nil
}

func missing(name string) error {
	return errno.New(errno.ErrBadStream, "the archive has no %s, to which it refers: it is cut off, or not whole", clip(name))
}

func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// member is where a file of an archive is; link is what a link names.
type member struct {
	off, size int64
	link      string
}

// tarSource is an archive that can be read in any place.
type tarSource struct {
	r       io.ReaderAt
	members map[string]member
}

// openTar finds the members of an archive of size bytes.
func openTar(r io.ReaderAt, size int64) (*tarSource, error) {
	s := &tarSource{r, map[string]member{}}
	section := io.NewSectionReader(r, 0, size)
	tr := tar.NewReader(section)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return nil, errno.New(errno.ErrBadStream, "the archive cannot be read to its end: %w", err)
		}
		off, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, fmt.Errorf("read the archive: %w", err)
		}
		if err := s.add(h, off); err != nil {
			return nil, err
		}
	}
}

func (s *tarSource) add(h *tar.Header, off int64) error {
	name := path.Clean("/" + h.Name)[1:]
	m := member{off: off, size: h.Size}
	switch h.Typeflag {
	case tar.TypeReg:
		for k := range h.PAXRecords {
			if strings.HasPrefix(k, "GNU.sparse.") {
				return errno.New(errno.ErrBadStream, "%s is stored as a sparse file, which archives of images are not", clip(name))
			}
		}
	case tar.TypeSymlink: // docker-save writes a layer that is there twice so
		m = member{link: path.Clean("/" + path.Dir(name) + "/" + h.Linkname)[1:]}
	case tar.TypeLink:
		m = member{link: path.Clean("/" + h.Linkname)[1:]}
	default:
		return nil
	}
	if len(s.members) >= maxMembers {
		return errno.New(errno.ErrTooLarge, "the archive has more than %d members", maxMembers)
	}
	s.members[name] = m
	return nil
}

// find follows links, of which there may be a few.
func (s *tarSource) find(name string) (member, bool) {
	for range 8 {
		m, ok := s.members[name]
		if !ok || m.link == "" {
			return m, ok
		}
		name = m.link
	}
	return member{}, false
}

func (s *tarSource) has(name string) bool {
	_, ok := s.find(name)
	return ok
}

func (s *tarSource) open(name string) (io.ReadCloser, int64, error) {
	m, ok := s.find(name)
	if !ok {
		return nil, 0, missing(name)
	}
	return io.NopCloser(io.NewSectionReader(s.r, m.off, m.size)), m.size, nil
}

// dirSource is a layout in a folder; symlinks do not lead out of it.
type dirSource struct{ root *safefs.Dir }

func (s dirSource) has(name string) bool {
	f, _, err := s.open(name)
	return err == nil && f.Close() == nil
}

func (s dirSource) open(name string) (io.ReadCloser, int64, error) {
	f, err := s.root.OpenAt(name, os.O_RDONLY|unix.O_NONBLOCK, 0, safefs.Beneath)
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errno.New(errno.ErrBadStream, "%s is not a file", clip(name))
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, fi.Size(), nil
}
