package layertar

import (
	"context"
	"io"
	"os"

	"github.com/plyfs/plyfs/internal/errno"
)

// Split is an opened tar-split record. It may be used by several goroutines.
type Split struct{}

// OpenSplit opens and checks the record at path, in bounded memory. A record
// that cannot be understood is ErrDamaged.
func OpenSplit(path string) (*Split, error) {
	return nil, errno.New(errno.ErrNotSupported, "split: not supported")
}

// Size is the exact length of the tar stream in bytes.
func (s *Split) Size() int64 { return 0 }

// Close lets go of the record's index.
func (s *Split) Close() error { return nil }

// Reader returns the tar stream, with file content read from root, the
// layer's own directory, which stays the caller's and must stay open as long.
func (s *Split) Reader(root *os.File) *SplitReader { return &SplitReader{} }

// SplitReader is a layer's tar stream, byte for byte as it was imported. It
// may be used by several goroutines.
type SplitReader struct{}

// Size is the exact length of the stream in bytes.
func (r *SplitReader) Size() int64 { return 0 }

// ReadAt reads at any offset. Content is not checked against the record's
// checksums here; a file that is missing or of another size is ErrDamaged.
func (r *SplitReader) ReadAt(b []byte, off int64) (int, error) { return 0, io.EOF }

// WriteTo writes the whole stream and checks each file's CRC-64; a mismatch
// is ErrDamaged.
func (r *SplitReader) WriteTo(w io.Writer) (int64, error) {
	return r.Copy(context.Background(), w)
}

// Copy is WriteTo with a context.
func (r *SplitReader) Copy(ctx context.Context, w io.Writer) (int64, error) {
	return 0, errno.New(errno.ErrNotSupported, "split: not supported")
}
