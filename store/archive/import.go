package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/store"
)

// Options say how Import works.
type Options struct {
	// CheckName refuses names that an image must not have; nil takes all.
	CheckName func(name string) error
	// Progress, when set, is told what is done now. It must be quick.
	Progress func(text string)
	// Temp makes a file without a name for an archive that is compressed as a
	// whole, and is unpacked into it.
	Temp func() (*os.File, error)
}

// Import takes all images of the archive in f, of size bytes, plain or
// compressed, and returns their IDs. ErrBadStream when the archive is broken,
// cut off, or a digest is not what is promised; nothing has changed then, also
// when only one of several images is bad. f stays the caller's.
func Import(ctx context.Context, s *store.Store, f *os.File, size int64, o Options) (_ []string, err error) {
	head := make([]byte, 512)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	if layertar.Detect(head[:n]) != layertar.None {
		plain, err := unpack(ctx, io.NewSectionReader(f, 0, size), o.Temp)
		if err != nil {
			return nil, err
		}
		defer func() {
			if cerr := plain.Close(); err == nil {
				err = cerr
			}
		}()
		fi, err := plain.Stat()
		if err != nil {
			return nil, err
		}
		f, size = plain, fi.Size()
	}
	src, err := openTar(f, size)
	if err != nil {
		return nil, err
	}
	return take(ctx, s, src, o)
}

// ImportFolder takes all images of the OCI layout in the folder at path.
func ImportFolder(ctx context.Context, s *store.Store, path string, o Options) (_ []string, err error) {
	root, err := safefs.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open the layout: %w", err)
	}
	defer func() {
		if cerr := root.Close(); err == nil {
			err = cerr
		}
	}()
	return take(ctx, s, dirSource{root}, o)
}

// unpack decompresses an archive into a file of its own.
func unpack(ctx context.Context, r io.Reader, temp func() (*os.File, error)) (*os.File, error) {
	z, _, err := layertar.Decompress(r)
	if err != nil {
		return nil, errno.New(errno.ErrBadStream, "the archive cannot be decompressed: %w", err)
	}
	f, err := temp()
	if err != nil {
		return nil, errors.Join(err, z.Close())
	}
	_, err = io.Copy(f, reading{ctx, z})
	if cerr := z.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		if ctx.Err() == nil {
			err = errno.New(errno.ErrBadStream, "the archive cannot be decompressed to its end: %w", err)
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// reading ends with its context.
type reading struct {
	ctx context.Context
	r   io.Reader
}

func (r reading) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// importer takes the images of one archive, all or none: first their layers,
// then their records without names, then, in one step, all names. A failure
// removes what was made; a kill leaves layers that the next import of the same
// archive takes up, or images without their names.
type importer struct {
	ctx    context.Context
	s      *store.Store
	src    source
	o      Options
	layers []string // that were made, oldest first
	images []string // that were made
}

func take(ctx context.Context, s *store.Store, src source, o Options) ([]string, error) {
	images, err := read(src)
	if err != nil {
		return nil, err
	}
	for _, i := range images {
		for _, n := range i.names {
			if o.CheckName == nil {
				continue
			}
			if err := o.CheckName(n); err != nil {
				return nil, err
			}
		}
	}
	m := &importer{ctx: ctx, s: s, src: src, o: o}
	ids, err := m.take(images)
	if err != nil {
		return nil, errors.Join(err, m.undo())
	}
	return ids, nil
}

func (m *importer) take(images []image) ([]string, error) {
	ids, tops := make([]string, len(images)), make([]string, len(images))
	for n := range images {
		i := &images[n]
		top, err := m.content(i)
		if err != nil {
			return nil, fmt.Errorf("import image %s: %w", i.id, err)
		}
		ids[n], tops[n] = i.id, top
	}
	for n, i := range images {
		if err := m.record(i, tops[n]); err != nil {
			return nil, fmt.Errorf("import image %s: %w", i.id, err)
		}
	}
	err := m.s.Update(m.ctx, func(w *store.WriteTx) error {
		for n, i := range images {
			if err := name(w, i, tops[n]); err != nil {
				return fmt.Errorf("import image %s: %w", i.id, err)
			}
		}
		return nil
	})
	return ids, err
}

// undo removes what was made for an import that failed; what somebody uses by
// now stays.
func (m *importer) undo() error {
	ctx := context.WithoutCancel(m.ctx)
	var errs []error
	for _, id := range m.images {
		used := false
		errs = append(errs, m.s.View(ctx, func(t *store.Tx) error {
			used = t.ImageByID(id) == nil || len(t.ContainersOf(id)) > 0
			return nil
		}))
		if !used {
			errs = append(errs, m.s.Delete(ctx, id)) // the record; its layers may have been there before
		}
	}
	for _, id := range slices.Backward(m.layers) {
		err := m.s.DeleteLayer(ctx, id)
		if err != nil && !errors.Is(err, errno.ErrInUse) && !errors.Is(err, errno.ErrHasChildren) && !errors.Is(err, errno.ErrUnknown) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// content makes the image's layers, returns the top one, and completes the
// manifest.
func (m *importer) content(i *image) (top string, err error) {
	sizes := make([]int64, len(i.layers))
	for n, l := range i.layers {
		if m.o.Progress != nil {
			m.o.Progress(fmt.Sprintf("image %.12s layer %d of %d", i.id, n+1, len(i.layers)))
		}
		rec, err := m.layer(top, l)
		if err != nil {
			return "", fmt.Errorf("layer %d of %d: %w", n+1, len(i.layers), err)
		}
		top, sizes[n] = rec.ID, rec.DiffSize
	}
	if i.manifest == nil {
		var diffs []digest.Digest
		for _, l := range i.layers {
			diffs = append(diffs, l.diff)
		}
		i.manifest, err = manifestOf(i.config, diffs, sizes, nil)
	}
	return top, err
}

// record makes the image, without names, unless it is there.
func (m *importer) record(i image, top string) error {
	_, err := m.s.CreateImage(m.ctx, store.ImageSpec{ID: i.id, Layer: top, Metadata: "{}", Created: i.created, BigData: []store.BigDataItem{
		{Key: digest.FromBytes(i.config).String(), Data: i.config},
		{Key: "manifest-" + digest.FromBytes(i.manifest).String(), Data: i.manifest},
		{Key: "manifest", Data: i.manifest},
	}})
	if errors.Is(err, errno.ErrDuplicate) {
		return nil
	}
	if err == nil {
		m.images = append(m.images, i.id)
	}
	return err
}

// name gives the image its names.
func name(w *store.WriteTx, i image, top string) error {
	if len(i.names) == 0 {
		return nil
	}
	have := w.ImageByID(i.id)
	if have == nil || have.TopLayer != top {
		return errno.New(errno.ErrDuplicate, "another image has the ID %s: remove it first", i.id)
	}
	var fresh []string
	for _, n := range i.names {
		if !slices.Contains(have.Names, n) {
			fresh = append(fresh, n)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	return w.AddNames(store.KindImage, i.id, fresh...)
}

// layer returns the layer over parent with l's content: one that is there, or
// a new one.
func (m *importer) layer(parent string, l layer) (*store.Layer, error) {
	id := layerID(parent, l.diff)
	var have *store.Layer
	err := m.s.View(m.ctx, func(t *store.Tx) error {
		for _, x := range t.LayersByDigest(l.diff) {
			if x.Parent == parent && x.DiffDigest == l.diff && x.Maps.Empty() && (have == nil || x.ID == id) {
				have = x
			}
		}
		if t.LayerByID(id) != nil {
			id = "" // of other content, or mapped
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if have != nil {
		return have, m.check(l)
	}
	staged, err := m.s.StageLayer(m.ctx, store.LayerSpec{ID: id, Parent: parent})
	if err != nil {
		return nil, err
	}
	if err := m.fill(staged, l); err != nil {
		return nil, errors.Join(err, staged.Discard(context.WithoutCancel(m.ctx)))
	}
	rec, err := staged.Commit(m.ctx)
	if errors.Is(err, errno.ErrDuplicate) && id != "" {
		return m.layer(parent, l) // somebody imports the same
	}
	if err == nil {
		m.layers = append(m.layers, rec.ID)
	}
	return rec, err
}

func (m *importer) fill(staged *store.StagedLayer, l layer) (err error) {
	f, _, err := m.src.open(l.file)
	if err != nil {
		return err
	}
	res, err := staged.Import(m.ctx, f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return l.promised(res.DiffDigest, res.CompressedDigest)
}

// promised compares what was read with what the image promises.
func (l layer) promised(diff, packed digest.Digest) error {
	switch {
	case diff != l.diff:
		return errno.New(errno.ErrBadStream, "%s unpacks to the digest %s, the image promises %s", clip(l.file), diff, l.diff)
	case l.packed != "" && packed != l.packed:
		return errno.New(errno.ErrBadStream, "%s has the digest %s, the image promises %s", clip(l.file), packed, l.packed)
	}
	return nil
}

// check reads a layer that the store has already, so that an archive is good or
// damaged whatever is there. A file of the promised digest need not be unpacked.
func (m *importer) check(l layer) (err error) {
	f, _, err := m.src.open(l.file)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	packed := digest.SHA256.Digester()
	file := io.TeeReader(reading{m.ctx, f}, packed.Hash())
	if l.packed != "" {
		if _, err := io.Copy(io.Discard, file); err != nil {
			return fmt.Errorf("read %s: %w", clip(l.file), err)
		}
		return l.promised(l.diff, packed.Digest())
	}
	z, _, err := layertar.Decompress(file)
	if err != nil {
		return errno.New(errno.ErrBadStream, "%s cannot be decompressed: %w", clip(l.file), err)
	}
	diff := digest.SHA256.Digester()
	_, err = io.Copy(diff.Hash(), z)
	if cerr := z.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		if m.ctx.Err() == nil {
			err = errno.New(errno.ErrBadStream, "%s cannot be read to its end: %w", clip(l.file), err)
		}
		return err
	}
	return l.promised(diff.Digest(), "")
}

// layerID is the ID that the peers give to a layer of an image.
func layerID(parent string, diff digest.Digest) string {
	if parent == "" {
		return diff.Encoded()
	}
	return digest.FromString(parent + "+" + diff.Encoded()).Encoded()
}
