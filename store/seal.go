package store

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	"github.com/vbatts/tar-split/tar/asm"
	tarstorage "github.com/vbatts/tar-split/tar/storage"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
)

// Seal makes the digests of a layer known that has none, since it was written
// by hand: its diff is made once, hashed and recorded in a tar-split file, so
// that everyone exports the same bytes from then on. A layer whose digests are
// known is left alone. podman refuses a whole store for an image with a layer
// without digests. ErrInUse when the layer is mounted or written to meanwhile.
func (s *Store) Seal(ctx context.Context, ref string) (*Layer, error) {
	l, err := s.layer(ctx, ref)
	if err != nil || l.DiffDigest != "" {
		return l, err
	}
	if err := s.writable(); err != nil {
		return nil, err
	}
	base, err := s.observe(ctx, l.ID, (*Tx).checkSealable)
	if err != nil {
		return nil, err
	}
	entry, err := s.newEntryIn(s.layerRoot(l.ID))
	if err != nil {
		return nil, err
	}
	defer s.discard(ctx, entry)
	content, err := s.hashDiff(ctx, entry, l)
	if err != nil {
		return nil, fmt.Errorf("seal layer %s: %w", l.ID, err)
	}
	j := journal{
		Op: journalSeal, Kind: journalKind(KindLayer), ID: l.ID,
		Old: contentOf(base.rec), New: content, Split: true,
	}
	s.fail("seal:1")
	sealed, err := s.whenUnchanged(ctx, base, (*Tx).checkSealable, func(w *WriteTx) error {
		if err := entry.writeJournal(j); err != nil {
			return err
		}
		s.fail("seal:2")
		err := w.exchanged(entry, &j)
		entry.keep = err != nil
		return err
	})
	if errors.Is(err, errno.ErrInUse) { // perhaps another was quicker
		if now, lerr := s.layer(ctx, l.ID); lerr == nil && now.DiffDigest != "" {
			return now, nil
		}
	}
	return sealed, err
}

// settleSeal completes a Seal whose tar-split file is in place; what was
// written to the layer since is not in it, so it is dropped then.
func (w *WriteTx) settleSeal(e *stageEntry, j *journal) error {
	l := w.LayerByID(j.ID)
	if l == nil || j.Old == nil || j.New == nil || !contentOf(l).same(j.Old) {
		return nil
	}
	if _, err := os.Lstat(e.own(splitFile)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	written, err := w.s.writtenSince(w.ctx(), l)
	if err != nil {
		return err
	}
	if written {
		return e.trash(w.s.splitPath(l.ID))
	}
	return w.exchanged(e, j)
}

// checkSealable refuses layers whose content may be changing.
func (t *Tx) checkSealable(l *Layer) error { return t.checkUnmounted(l.ID) }

// hashDiff makes the layer's diff and records it in the entry.
func (s *Store) hashDiff(ctx context.Context, entry *stageEntry, l *Layer) (_ *layerContent, err error) {
	src, err := s.Diff(ctx, "", l.ID)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(entry.own(splitFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	zip := gzip.NewWriter(f)
	content, err := recordStream(ctx, src, zip)
	if err = errors.Join(err, zip.Close()); err == nil {
		err = f.Sync()
	}
	return content, errors.Join(err, f.Close())
}

// recordStream generates src once, through a hash, and writes its tar-split
// record to split.
func recordStream(ctx context.Context, src layertar.Source, split io.Writer) (*layerContent, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(layertar.Generate(ctx, w, src)) }()
	in, done, err := asm.NewInputTarStreamWithDone(r, tarstorage.NewJSONPacker(split), nil)
	if err != nil {
		return nil, errors.Join(err, r.CloseWithError(err))
	}
	h := digest.Canonical.Digester()
	n, err := io.Copy(h.Hash(), in)
	err = errors.Join(err, in.Close(), r.Close())
	if derr := <-done; err == nil {
		err = derr
	}
	if err != nil {
		return nil, err
	}
	return &layerContent{
		CompressedDigest: h.Digest(), CompressedSize: n,
		DiffDigest: h.Digest(), DiffSize: n, Compression: layertar.None,
	}, nil
}
