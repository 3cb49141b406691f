package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/layertar"
)

// Nothing is an empty tree in place of a layer in Diff, Changes and DiffSize.
const Nothing = "\x00"

// Diff says what the difference between two layers is made from. from and to
// name layers, or are Nothing; an empty from is the parent of to (nothing, for a
// base layer).
func (s *Store) Diff(ctx context.Context, from, to string) (src layertar.Source, err error) {
	if s.driver == nil {
		return src, s.writable()
	}
	var layer, old *Layer
	var maps, oldMaps idmap.Maps
	err = s.View(ctx, func(t *Tx) error {
		if layer, maps, err = t.diffEnd(to); err != nil {
			return err
		}
		if from == "" {
			from = Nothing
			if layer != nil && layer.Parent != "" {
				from = layer.Parent
			}
		}
		old, oldMaps, err = t.diffEnd(from)
		return err
	})
	if err != nil {
		return src, err
	}
	var id, below string
	source := drivers.DiffSource
	if layer == nil || old != nil && !sameMaps(layer.Maps, old.Maps) {
		source = drivers.CompareSource // every file has another owner there
	}
	if layer != nil {
		id = layer.ID
	}
	if old != nil {
		below = old.ID
	}
	src, err = source(s.driver, id, below)
	if err != nil {
		return src, fmt.Errorf("diff of layer %s: %w", id, err)
	}
	src.Maps, src.OldMaps, src.OverrideStat = maps, oldMaps, s.singleID()
	return src, nil
}

// diffEnd returns one of the layers of a Diff with the maps of its owners; none
// for Nothing.
func (t *Tx) diffEnd(ref string) (*Layer, idmap.Maps, error) {
	if ref == Nothing {
		return nil, idmap.Maps{}, nil
	}
	l, err := t.Layer(ref)
	if err != nil {
		return nil, idmap.Maps{}, err
	}
	return l, t.ownerMaps(l), nil
}

// Changes yields the differences between two layers (see Diff), in the order
// and words of the peers' `changes`. No lock is held.
func (s *Store) Changes(ctx context.Context, from, to string, yield func(layertar.Change) error) error {
	src, err := s.Diff(ctx, from, to)
	if err != nil {
		return err
	}
	return layertar.Changes(ctx, src, yield)
}

// DiffSize counts the bytes of the difference as the peers' `diffsize` does.
func (s *Store) DiffSize(ctx context.Context, from, to string) (int64, error) {
	src, err := s.Diff(ctx, from, to)
	if err != nil {
		return 0, err
	}
	return layertar.Size(ctx, src)
}

// TarSource is a layer's difference to its parent as a tar stream. Where the
// stream that made the layer was recorded, it is that very stream, of known
// size and readable at any offset; else it is made anew by each Copy. It
// belongs to its caller, who closes it.
type TarSource struct {
	split *layertar.Split       // nil for a generated stream
	rd    *layertar.SplitReader // of split
	root  *os.File              // the layer's own directory, for rd
	src   layertar.Source
}

// DiffTar returns the layer's difference to its parent.
func (s *Store) DiffTar(ctx context.Context, ref string) (*TarSource, error) {
	l, err := s.layer(ctx, ref)
	if err != nil {
		return nil, err
	}
	t, err := s.splitTar(l)
	if t != nil || err != nil {
		return t, err
	}
	src, err := s.Diff(ctx, "", l.ID)
	if err != nil {
		return nil, err
	}
	return &TarSource{src: src}, nil
}

// RecordedTar is DiffTar of a layer whose stream was recorded; nil without error
// when there is no record. The caller closes it.
func (s *Store) RecordedTar(ctx context.Context, ref string) (*TarSource, error) {
	l, err := s.layer(ctx, ref)
	if err != nil {
		return nil, err
	}
	return s.splitTar(l)
}

// splitTar opens the recorded stream; nil without error when there is none.
func (s *Store) splitTar(l *Layer) (*TarSource, error) {
	if l.DiffDigest == "" || s.driver == nil {
		return nil, nil
	}
	split, err := layertar.OpenSplit(s.splitPathOf(l))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", l.ID, err)
	}
	t := &TarSource{split: split}
	dirs, err := s.driver.Dirs(l.ID)
	if err == nil && len(dirs) == 0 {
		err = errno.New(errno.ErrDamaged, "layer %s has no directory", l.ID)
	}
	if err == nil {
		t.root, err = os.OpenFile(dirs[0], os.O_RDONLY|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("diff of layer %s: %w", l.ID, err), split.Close())
	}
	t.rd = split.Reader(t.root)
	return t, nil
}

// Size is the stream's exact length; false when it is not known without
// making the stream.
func (t *TarSource) Size() (int64, bool) {
	if t.rd == nil {
		return 0, false
	}
	n, err := t.rd.Size()
	return n, err == nil // a damaged record is told by what reads it
}

// ReadAt reads at any offset of a stream whose Size is known.
func (t *TarSource) ReadAt(p []byte, off int64) (int, error) {
	if t.rd == nil {
		return 0, errno.New(errno.ErrSeek, "this diff is made while it is read and has no offsets")
	}
	return t.rd.ReadAt(p, off)
}

// Copy writes the whole stream.
func (t *TarSource) Copy(ctx context.Context, w io.Writer) (int64, error) {
	if t.rd != nil {
		return t.rd.Copy(ctx, w)
	}
	c := &countingWriter{w: w}
	err := layertar.Generate(ctx, c, t.src)
	return c.n, err
}

// WriteTo is Copy without a context.
func (t *TarSource) WriteTo(w io.Writer) (int64, error) { return t.Copy(context.Background(), w) }

// Close lets go of what the source holds open.
func (t *TarSource) Close() error {
	var err error
	if t.split != nil {
		err = t.split.Close()
	}
	if t.root != nil {
		err = errors.Join(err, t.root.Close())
	}
	return err
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// splitPathOf is where the tar-split record of a layer is, which may belong
// to an additional image store.
func (s *Store) splitPathOf(l *Layer) string {
	if l.shadow == 0 {
		return s.splitPath(l.ID)
	}
	return s.shadowPath(KindLayer, l.shadow, l.ID+"."+splitFile)
}

// layer returns a record as it is now.
func (s *Store) layer(ctx context.Context, ref string) (rec *Layer, err error) {
	err = s.View(ctx, func(t *Tx) error {
		rec, err = t.Layer(ref)
		return err
	})
	return rec, err
}
