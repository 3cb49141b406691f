package layertar

import (
	"io"

	"github.com/plyfs/plyfs/internal/errno"
)

// Compression is a stream's outer format, with the numbers that the store's
// records use (format.md §2.2).
type Compression int

// The compressions that Decompress recognises.
const (
	None Compression = iota
	Bzip2
	Gzip
	Xz
	Zstd
)

// Decompress recognises the compression of r by content and returns the plain
// stream. Closing the result does not close r.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	return nil, None, errno.New(errno.ErrNotSupported, "decompress: not supported")
}
