package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/durable"
	"github.com/plyfs/plyfs/internal/errno"
)

const (
	dataDir     = "data"
	manifestKey = "manifest"
)

// CreateImage makes an image of a layer, or of none, with its big data, all or
// nothing. Without an item `manifest` podman refuses to list the whole store:
// see CreateMinimalImage. With one, the layers are sealed first (see Seal).
func (s *Store) CreateImage(ctx context.Context, spec ImageSpec) (*Image, error) {
	if s.opts.ReadOnly {
		return nil, s.writable()
	}
	if err := s.View(ctx, func(t *Tx) (err error) { return t.checkImageSpec(&spec) }); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(spec.BigData, func(i BigDataItem) bool { return i.Key == manifestKey }) {
		if _, err := s.sealedChain(ctx, spec.Layer); err != nil {
			return nil, err
		}
	}
	rec := &Image{
		ID: spec.ID, Names: spec.Names, TopLayer: spec.Layer, Metadata: spec.Metadata,
		Digest: spec.Digest, Created: orNow(spec.Created),
	}
	entry, err := s.newEntryIn(s.imageRoot())
	if err != nil {
		return nil, err
	}
	defer s.discard(ctx, entry)
	s.fail("make:1")
	rec.BigDataNames, rec.BigDataSizes, rec.BigDataDigests, err = entry.stageData(spec.BigData)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", rec.ID, err)
	}
	if rec.Digest == "" {
		rec.Digest = rec.BigDataDigests[manifestKey]
	}
	if err := entry.writeJournal(journal{Op: journalCreate, Kind: journalKind(KindImage), ID: rec.ID}); err != nil {
		return nil, err
	}
	s.fail("make:2")
	err = s.Update(ctx, func(w *WriteTx) error {
		if err := w.checkImageSpec(&spec); err != nil {
			return err
		}
		return w.makeKnown(entry, KindImage, rec.ID, func() error { return w.addImage(rec) })
	})
	if err != nil {
		return nil, err
	}
	s.fail("make:6")
	return rec, nil
}

func (t *Tx) checkImageSpec(spec *ImageSpec) (err error) {
	if spec.ID, err = t.freeID(KindImage, spec.ID); err != nil {
		return err
	}
	if spec.Layer != "" && t.LayerByID(spec.Layer) == nil {
		return errno.New(errno.ErrUnknown, "layer %s is not known, so no image can be made of it; it may have been deleted", spec.Layer)
	}
	if c := t.ContainersOnLayer(spec.Layer); spec.Layer != "" && len(c) > 0 {
		return errno.New(errno.ErrInUse, "layer %s is that of container %s and would go with it; make the image of a layer of its own", spec.Layer, c[0].ID)
	}
	if spec.Digest != "" && spec.Digest.Validate() != nil {
		return errno.New(errno.ErrBadValue, "%q is no digest; write it as sha256: and 64 hex digits", spec.Digest)
	}
	return t.freeNames(KindImage, spec.Names)
}

func orNow(t time.Time) time.Time {
	if t.IsZero() {
		return time.Now().UTC()
	}
	return t
}

// makeKnown is make:4 and make:5: the staged data directory is put in place
// and the record saved; on error neither is there.
func (w *WriteTx) makeKnown(entry *stageEntry, k Kind, id string, add func() error) error {
	place := w.s.objectDir(k, id)
	staged := entry.own(dataDir)
	moved := false
	if _, err := os.Lstat(staged); err == nil {
		if err := os.Rename(staged, place); err != nil {
			if errors.Is(err, os.ErrExist) {
				return errno.New(errno.ErrDamaged, "%s exists, but no %s has that ID; move it away or choose another ID", place, k)
			}
			return fmt.Errorf("put the data of %s %s in place: %w", k, id, err)
		}
		moved = true
	}
	w.s.fail("make:4")
	err := add()
	if err == nil {
		err = w.save(k)
	}
	if err != nil {
		err = fmt.Errorf("record %s %s: %w", k, id, err)
		if moved {
			err = errors.Join(err, entry.trash(place))
		}
		return err
	}
	w.s.fail("make:5")
	return nil
}

// stageData writes items into the entry, synced; with none it makes nothing.
func (e *stageEntry) stageData(items []BigDataItem) (keys []string, sizes map[string]int64, digests map[string]digest.Digest, err error) {
	if len(items) == 0 {
		return nil, nil, nil, nil
	}
	dir := e.own(dataDir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, nil, nil, fmt.Errorf("make the data directory: %w", err)
	}
	sizes, digests = map[string]int64{}, map[string]digest.Digest{}
	for _, item := range items {
		name, err := dataFileName(item.Key)
		if err != nil {
			return nil, nil, nil, err
		}
		if slices.Contains(keys, item.Key) {
			return nil, nil, nil, errno.New(errno.ErrDuplicate, "big data key %q is given twice", item.Key)
		}
		err = durable.WriteFile(filepath.Join(dir, name), 0o600, func(w io.Writer) error {
			_, err := w.Write(item.Data)
			return err
		})
		if err != nil {
			return nil, nil, nil, fmt.Errorf("write big data item %q: %w", item.Key, err)
		}
		keys = append(keys, item.Key)
		sizes[item.Key] = int64(len(item.Data))
		digests[item.Key] = digest.FromBytes(item.Data)
	}
	return keys, sizes, digests, nil
}

// CreateContainer makes a container with a layer of its own over that of its
// image, all or nothing. Without an image, or with one that has no layer, the
// container's layer has no parent.
func (s *Store) CreateContainer(ctx context.Context, spec ContainerSpec) (*Container, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	if spec.Auto != nil {
		return s.createAuto(ctx, spec)
	}
	return s.createContainer(ctx, spec)
}

func (s *Store) createContainer(ctx context.Context, spec ContainerSpec) (_ *Container, err error) {
	spec.Volatile = spec.Volatile || s.opts.Transient
	var parent string
	err = s.View(ctx, func(t *Tx) (err error) {
		parent, err = t.checkContainerSpec(&spec)
		return err
	})
	if err != nil {
		return nil, err
	}
	if parent, err = s.mappedParent(ctx, spec, parent); err != nil {
		return nil, err
	}
	st, err := s.StageLayer(ctx, s.containerLayer(spec, parent))
	if err != nil {
		return nil, err
	}
	defer s.discard(ctx, st.entry)
	s.fail("make:1")
	rec := containerRecord(spec, st.ID())
	rec.BigDataNames, rec.BigDataSizes, rec.BigDataDigests, err = st.entry.stageData(spec.BigData)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", rec.ID, err)
	}
	err = st.entry.writeJournal(journal{Op: journalCreate, Kind: journalKind(KindContainer), ID: rec.ID, Layers: []string{st.ID()}})
	if err != nil {
		return nil, err
	}
	s.fail("make:2")
	if spec.Auto != nil {
		unlock, lerr := s.lockMaps(ctx)
		if lerr != nil {
			return nil, lerr
		}
		defer func() { err = also(err, unlock()) }()
	}
	err = s.Update(ctx, func(w *WriteTx) error { return w.publishContainer(st, rec, spec, parent) })
	if err != nil {
		return nil, err
	}
	s.fail("make:6")
	return rec, nil
}

// publishContainer is make:3 to make:5.
func (w *WriteTx) publishContainer(st *StagedLayer, rec *Container, spec ContainerSpec, parent string) error {
	if _, err := w.checkContainerSpec(&spec); err != nil {
		return err
	}
	if spec.Auto != nil {
		if err := w.checkMapsFree(spec.Maps); err != nil {
			return err
		}
	}
	if img := w.ImageByID(spec.Image); img != nil && parent != img.TopLayer && !slices.Contains(img.MappedLayers, parent) {
		return errno.New(errno.ErrInUse, "image %s got another layer while container %s was made; try again", spec.Image, rec.ID)
	}
	if err := w.publishJournaled(st.entry, st.record()); err != nil {
		return err
	}
	w.s.fail("make:3")
	err := w.makeKnown(st.entry, KindContainer, rec.ID, func() error { return w.addContainer(rec) })
	if err != nil {
		return errors.Join(err, w.dropLayer(st.entry, st.ID()))
	}
	return nil
}

// checkContainerSpec fills in the ID and returns the parent of its layer.
func (t *Tx) checkContainerSpec(spec *ContainerSpec) (parent string, err error) {
	if err := checkMaps(spec.Maps); err != nil {
		return "", err
	}
	if spec.ID, err = t.freeID(KindContainer, spec.ID); err != nil {
		return "", err
	}
	if spec.Image != "" {
		img := t.ImageByID(spec.Image)
		if img == nil {
			return "", errno.New(errno.ErrUnknown, "image %s is not known, so no container can be made of it; it may have been deleted", spec.Image)
		}
		parent = img.TopLayer
	}
	if parent != "" && t.LayerByID(parent) == nil {
		return "", errno.New(errno.ErrDamaged, "image %s: its layer %s is missing, so no container can be made of it", spec.Image, parent)
	}
	return parent, t.freeNames(KindContainer, spec.Names)
}

func containerRecord(spec ContainerSpec, layer string) *Container {
	flags := map[string]any{"MountLabel": spec.MountLabel, "ProcessLabel": ""}
	if spec.Volatile {
		flags["Volatile"] = true
	}
	return &Container{
		ID: spec.ID, Names: spec.Names, Image: spec.Image, Layer: layer,
		Metadata: spec.Metadata, Created: time.Now().UTC(),
		Maps: spec.Maps, Flags: flags, Volatile: spec.Volatile,
	}
}
