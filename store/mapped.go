package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/layertar"
)

func checkMaps(m idmap.Maps) error {
	if err := m.Validate(); err != nil {
		return errno.New(errno.ErrBadValue, "the ID maps make no sense: %w", err)
	}
	return nil
}

// sameMaps compares maps as they are written.
func sameMaps(a, b idmap.Maps) bool {
	return slices.Equal(a.UIDs, b.UIDs) && slices.Equal(a.GIDs, b.GIDs)
}

// shiftedMaps are the maps of the container that has l as its own layer, which
// a driver that maps when it mounts is given; none for other layers.
func (t *Tx) shiftedMaps(l *Layer) idmap.Maps {
	if !l.Maps.Empty() {
		return idmap.Maps{}
	}
	for _, c := range t.ContainersOnLayer(l.ID) {
		if !c.Maps.Empty() {
			return c.Maps
		}
	}
	return idmap.Maps{}
}

// ownerMaps translate the owners of the files in l's own directory.
func (t *Tx) ownerMaps(l *Layer) idmap.Maps {
	if l.Maps.Empty() && t.s.driver != nil && drivers.ShiftOf(t.s.driver) == drivers.ShiftLowers {
		return t.shiftedMaps(l)
	}
	return l.Maps
}

// OwnerMaps are the maps from the IDs of the container that sees l to the owners
// that the files in l's own directory have; empty where those are the same.
func (t *Tx) OwnerMaps(l *Layer) idmap.Maps { return t.ownerMaps(l) }

// MountMaps are the maps from a container's IDs to the owners that files have
// in the mount of l, nil being none.
func (t *Tx) MountMaps(l *Layer) idmap.Maps {
	switch {
	case l == nil:
		return idmap.Maps{}
	case l.Maps.Empty() && t.s.driver != nil && drivers.ShiftOf(t.s.driver) != drivers.NoShift:
		return t.shiftedMaps(l)
	}
	return l.Maps
}

// stageMapped stages a layer whose ID maps may differ from its parent's: then
// it begins with all that its parent shows, with the owners that its own maps
// give. Reading and writing that takes as long as a copy; no lock is held.
func (s *Store) stageMapped(ctx context.Context, spec LayerSpec) (*StagedLayer, error) {
	var parent *Layer
	if spec.Parent != "" {
		var err error
		if parent, err = s.layer(ctx, spec.Parent); err != nil {
			return nil, err
		}
	}
	switch {
	case drivers.ShiftOf(s.driver) != drivers.NoShift:
		spec.Maps = idmap.Maps{}
	case spec.Maps.Empty() && !spec.HostIDs && parent != nil:
		spec.Maps = parent.Maps
	}
	st, err := s.stage(ctx, spec, nil)
	if err != nil || parent == nil || sameMaps(spec.Maps, parent.Maps) {
		return st, err
	}
	if err := st.takeOver(ctx, parent); err != nil {
		return nil, errors.Join(err, st.Discard(ctx))
	}
	return st, nil
}

// takeOver extracts what a published layer shows into the staged one, owners
// translated from the one's maps to the other's. *idmap.UnmappedError (in
// ErrBadValue) when a file has an owner that the maps lack.
func (st *StagedLayer) takeOver(ctx context.Context, from *Layer) error {
	src, err := drivers.CompareSource(st.s.driver, from.ID, "")
	if err != nil {
		return fmt.Errorf("map layer %s: %w", from.ID, err)
	}
	src.Maps, src.OverrideStat = from.Maps, st.s.singleID()
	if _, err = st.extract(ctx, src); err != nil {
		var unmapped *idmap.UnmappedError
		if errors.As(err, &unmapped) {
			return errno.New(errno.ErrBadValue, "the ID maps have no place for an owner in layer %s; give larger ones: %w", from.ID, err)
		}
		return fmt.Errorf("map layer %s: %w", from.ID, err)
	}
	return nil
}

// extract makes a tar of src and extracts it into the staged layer.
func (st *StagedLayer) extract(ctx context.Context, src layertar.Source) (res layertar.Result, err error) {
	dir, err := os.Open(st.private.Dir)
	if err != nil {
		return res, err
	}
	defer func() { err = also(err, dir.Close()) }()
	stream, feed := io.Pipe()
	done := make(chan error, 1)
	go func() {
		gerr := layertar.Generate(ctx, feed, src)
		done <- errors.Join(gerr, feed.CloseWithError(gerr))
	}()
	res, err = layertar.Import(ctx, dir, stream, io.Discard, st.applyOptions())
	cerr := stream.CloseWithError(errNoReader)
	gerr := <-done
	if errors.Is(gerr, errNoReader) {
		gerr = nil // the reader's error is the cause
	}
	if err = errors.Join(gerr, err, cerr); err == nil {
		st.taken = true
	}
	return res, err
}

var errNoReader = errors.New("the extraction ended first")

// containerLayer is the layer of a container on parent.
func (s *Store) containerLayer(spec ContainerSpec, parent string) LayerSpec {
	l := LayerSpec{
		ID: spec.LayerID, Parent: parent, Label: spec.MountLabel, Volatile: spec.Volatile,
		Maps: spec.Maps, HostIDs: spec.Maps.Empty(), Limits: spec.Limits, writable: true,
	}
	if drivers.ShiftOf(s.driver) == drivers.ShiftLowers {
		l.owner = spec.Maps
	}
	return l
}

// MapImage returns the ID of the image's layer that a container with these maps
// is made on: its top layer, or the copy of it with other owners, which is made
// if the image has none yet. "" for an image without layers. ErrUnknown,
// ErrBadValue when the maps make no sense or lack an owner.
func (s *Store) MapImage(ctx context.Context, ref string, maps idmap.Maps) (layerID string, err error) {
	if err := s.writable(); err != nil {
		return "", err
	}
	if err := checkMaps(maps); err != nil {
		return "", err
	}
	var img *Image
	err = s.View(ctx, func(t *Tx) (err error) {
		img, err = t.Image(ref)
		return err
	})
	if err != nil {
		return "", err
	}
	return s.mappedParent(ctx, ContainerSpec{Image: img.ID, Maps: maps}, img.TopLayer)
}

// mappedParent is the layer that a container's own is made on: top, or the
// image's copy of it with the container's maps, which is made when the image
// has none yet. Of a read-only image no copy is kept: top.
func (s *Store) mappedParent(ctx context.Context, spec ContainerSpec, top string) (string, error) {
	if drivers.ShiftOf(s.driver) != drivers.NoShift || top == "" {
		return top, nil
	}
	var found string
	var layer *Layer
	err := s.View(ctx, func(t *Tx) error {
		img := t.ImageByID(spec.Image)
		if layer = t.LayerByID(top); img == nil || layer == nil {
			return errno.New(errno.ErrUnknown, "image %s is not known; it may have been deleted", spec.Image)
		}
		if found = t.variant(img, spec.Maps); found == "" && (img.ReadOnly || layer.ReadOnly) {
			found = top
		}
		return nil
	})
	if err != nil || found != "" {
		return found, err
	}
	return s.makeVariant(ctx, spec.Image, layer, spec.Maps)
}

// variant finds the image's top layer or mapped layer that has these maps.
func (t *Tx) variant(img *Image, maps idmap.Maps) string {
	for _, id := range append([]string{img.TopLayer}, img.MappedLayers...) {
		if l := t.LayerByID(id); l != nil && sameMaps(l.Maps, maps) {
			return id
		}
	}
	return ""
}

// makeVariant makes a copy of an image's top layer with other maps, and enters
// it in the image. The steps are in doc_lifecycle.go.
func (s *Store) makeVariant(ctx context.Context, imageID string, top *Layer, maps idmap.Maps) (id string, err error) {
	spec := LayerSpec{Parent: top.Parent, Maps: maps, ReadOnly: true, twin: top.ID}
	if spec.ID, err = s.variantID(ctx, imageID, top.ID, maps); err != nil {
		return "", err
	}
	st, err := s.stage(ctx, spec, nil)
	if err != nil {
		return "", err
	}
	defer s.discard(ctx, st.entry)
	if err := st.takeOver(ctx, top); err != nil {
		return "", err
	}
	split, err := st.copySplit(top)
	if err != nil {
		return "", err
	}
	if err := st.syncContent(); err != nil {
		return "", err
	}
	s.fail("map:1")
	j := journal{Op: journalMap, Kind: journalKind(KindImage), ID: imageID, Layers: []string{spec.ID}}
	if err := st.entry.writeJournal(j); err != nil {
		return "", err
	}
	s.fail("map:2")
	err = s.Update(ctx, func(w *WriteTx) error {
		id, err = w.publishVariant(st, imageID, top, split)
		return err
	})
	return id, err
}

// variantID is the same for the same wish, so that two who make the copy at
// once make one; a random one when something else has that ID.
func (s *Store) variantID(ctx context.Context, imageID, topID string, maps idmap.Maps) (id string, err error) {
	id = digest.FromString(fmt.Sprintf("%q %q %v %v", imageID, topID, maps.UIDs, maps.GIDs)).Encoded()
	err = s.View(ctx, func(t *Tx) error {
		if t.LayerByID(id) != nil {
			id, err = newID()
		}
		return err
	})
	return id, err
}

// publishVariant is map:3 and map:4. Another's copy that came first is taken.
func (w *WriteTx) publishVariant(st *StagedLayer, imageID string, top *Layer, split bool) (string, error) {
	img, now := w.ImageByID(imageID), w.LayerByID(top.ID)
	if img == nil || now == nil || img.TopLayer != top.ID || !contentOf(now).same(contentOf(top)) {
		return "", errno.New(errno.ErrInUse, "image %s was changed or deleted while a mapped copy of its layer was made; try again", imageID)
	}
	if id := w.variant(img, st.spec.Maps); id != "" {
		return id, nil
	}
	rec := st.record()
	contentOf(top).set(rec)
	if err := w.publishLayer(st.entry, rec, split); err != nil {
		return "", err
	}
	w.s.fail("map:3")
	err := w.editImage(imageID, func(i *Image) error {
		i.MappedLayers = append(i.MappedLayers, rec.ID)
		return nil
	})
	if err == nil {
		err = w.save(KindImage)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("enter the mapped layer in image %s: %w", imageID, err), w.dropLayer(st.entry, rec.ID))
	}
	w.s.fail("map:4")
	return rec.ID, nil
}

// copySplit copies the tar-split record of a layer with the same content into
// the entry; false when it has none.
func (st *StagedLayer) copySplit(of *Layer) (_ bool, err error) {
	from, err := os.Open(st.s.splitPathOf(of))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = also(err, from.Close()) }()
	to, err := os.OpenFile(st.entry.own(splitFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return false, err
	}
	_, err = io.Copy(to, from)
	if err == nil {
		err = to.Sync()
	}
	return true, errors.Join(err, to.Close())
}
