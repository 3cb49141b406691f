package layertar

import (
	"context"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// ApplyOptions say how a stream is extracted.
type ApplyOptions struct {
	// Style is how whiteouts and opaque marks are written.
	Style whiteout.Style
	// Maps translate the stream's owners (container IDs) to the directory's
	// (host IDs); the zero value is the identity.
	Maps idmap.Maps
	// Limits bound what a stream may ask for; zero fields mean the defaults.
	Limits Limits
	// IgnoreChownErrors keeps the extracting user's ownership where chown is
	// refused.
	IgnoreChownErrors bool
	// OverrideStat writes owner, mode and device to the xattr
	// user.containers.override_stat in place of setting them (a rootless
	// store with a single ID).
	OverrideStat bool
}

// Limits bound a stream. Sizes are in bytes; a zero field means its default
// (DefaultLimits), a negative one no limit.
type Limits struct {
	Entries    int64 // members
	Name       int64 // a member's or link target's name
	Header     int64 // a PAX header or GNU long name, as stored
	Xattrs     int64 // all xattr names and values of a member
	FileSize   int64 // one member's apparent size
	Total      int64 // the decompressed stream
	Components int64 // path components of a name
}

// Result is what an import learned about its stream.
type Result struct {
	// CompressedDigest and CompressedSize are of the bytes as given,
	// DiffDigest and DiffSize of the decompressed tar. A stream of zero bytes
	// leaves the digests empty.
	CompressedDigest, DiffDigest digest.Digest
	CompressedSize, DiffSize     int64
	Compression                  Compression
	// UIDs and GIDs are the owners named in the stream (container IDs),
	// sorted, each once.
	UIDs, GIDs []uint32
	// Entries is the number of members.
	Entries int
}

// Import decompresses, hashes, parses and extracts r into dir and writes the
// tar-split record (gzip of JSON lines) to split, which may be nil. dir stays
// open and is the caller's, also after an error, with whatever was extracted
// until then. A broken stream is an ErrBadStream that names the member and
// its offset in the decompressed stream.
func Import(ctx context.Context, dir *os.File, r io.Reader, split io.Writer, o ApplyOptions) (Result, error) {
	return Result{}, errno.New(errno.ErrNotSupported, "import: not supported")
}
