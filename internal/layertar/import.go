package layertar

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/safefs"
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
	// user.containers.override_stat in place of setting the owner (a rootless
	// store with a single ID).
	OverrideStat bool
	// TOC, if set, gets the table of contents of a zstd:chunked stream,
	// uncompressed, from where it stands; it stays the caller's. CheckTOC tells
	// whether the table may be kept. What it has without a Result.TOCDigest is
	// of no use.
	TOC *os.File
	// SyncFiles makes each file durable before it is closed, and every
	// directory at the end.
	SyncFiles bool
}

// Result is what an import learned about its stream.
type Result struct {
	// CompressedDigest and CompressedSize are of the bytes as given,
	// DiffDigest and DiffSize of the decompressed tar. A stream of zero bytes
	// leaves the digests empty.
	CompressedDigest, DiffDigest digest.Digest
	CompressedSize, DiffSize     int64
	Compression                  Compression
	// TOCDigest is that of the table of contents (compressed, as it stood in
	// the stream), if ApplyOptions.TOC has it.
	TOCDigest digest.Digest
	// UIDs and GIDs are the owners named in the stream (container IDs),
	// sorted, each once.
	UIDs, GIDs []uint32
	// Entries is the number of members.
	Entries int
}

// Stopper is a source whose Read may wait for others. Stop, which is called from
// another goroutine, makes one that waits, and those that come, return; it is
// called when an import has failed or was cancelled.
type Stopper interface{ Stop() }

// Import decompresses, hashes, parses and extracts r into dir and writes the
// tar-split record (gzip of JSON lines) to split, which may be nil. dir stays
// open and is the caller's, also after an error, with whatever was extracted
// until then. A broken stream is an ErrBadStream that names the member and
// its offset in the decompressed stream. A cancelled ctx ends the import, as an
// error does, at the next read of r that returns: at once if r is a Stopper.
func Import(ctx context.Context, dir *os.File, r io.Reader, split io.Writer, o ApplyOptions) (Result, error) {
	o.Limits = o.Limits.withDefaults()
	return runImport(ctx, newFlow(r, o.Limits), dir, split, o, &parser{})
}

// runImport is the second half of an import; f's goroutine is started here
// and has ended when it returns.
func runImport(ctx context.Context, f *flow, dir *os.File, split io.Writer, o ApplyOptions, p *parser) (res Result, err error) {
	release := f.watch(ctx)
	defer release()
	if o.TOC != nil {
		f.toc = newTOCTracker()
		defer func() { err = errors.Join(err, f.toc.close()) }()
	}
	go f.feed()
	a, err := extract(ctx, f, dir, split, o, p)
	if err != nil {
		f.stop(err)
		if s, ok := f.src.(Stopper); ok {
			s.Stop()
		}
	}
	<-f.done
	if err != nil {
		return Result{}, err
	}
	if f.toc != nil {
		if res.TOCDigest, err = f.toc.writeTo(o.TOC); err != nil {
			return Result{}, err
		}
	}
	f.result(&res)
	res.UIDs, res.GIDs, res.Entries = sorted(a.uids), sorted(a.gids), a.entries
	return res, nil
}

func extract(ctx context.Context, f *flow, dir *os.File, split io.Writer, o ApplyOptions, p *parser) (a *applier, err error) {
	if err := o.Maps.Validate(); err != nil {
		return nil, errno.New(errno.ErrBadValue, "%w", err)
	}
	root, err := safefs.FromFile(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	rec, err := newRecorder(split)
	if err != nil {
		return nil, err
	}
	a = newApplier(root, p, rec, f.stop, o)
	p.in, p.pieces, p.raw, p.lim = f, f.next, a.out.rawBytes, o.Limits
	f.idle = a.out.flush
	if err := a.run(ctx); err != nil {
		return nil, err
	}
	return a, rec.close()
}

func sorted(set map[uint32]struct{}) []uint32 {
	if len(set) == 0 {
		return nil
	}
	out := make([]uint32, 0, len(set))
	for id := range set {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}
