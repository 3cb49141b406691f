package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/plyfs/plyfs/internal/errno"
)

// LayerSize is the number of bytes of the layer's tar, uncompressed; false
// when the record does not tell and only looking at its files would (DiffSize).
func (t *Tx) LayerSize(layerID string) (int64, bool) {
	l := t.LayerByID(layerID)
	if l == nil || l.DiffDigest == "" {
		return 0, false
	}
	return l.DiffSize, true
}

// ImageSize is what an image takes, in bytes, as the peers count it: LayerSize
// of its layers, those of its mapped layers too, each layer once, and its big
// data. Layers whose record does not tell count by DiffSize, with no lock.
func (s *Store) ImageSize(ctx context.Context, ref string) (int64, error) {
	var total int64
	var layers []*Layer
	err := s.View(ctx, func(t *Tx) error {
		img, err := t.Image(ref)
		if err != nil {
			return err
		}
		for _, size := range img.BigDataSizes {
			total += size
		}
		layers, err = t.layersOf(img)
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, l := range layers {
		size := l.DiffSize
		if l.DiffDigest == "" {
			if size, err = s.DiffSize(ctx, "", l.ID); err != nil {
				return 0, fmt.Errorf("size of image %s: %w", ref, err)
			}
		}
		total += size
	}
	return total, nil
}

// layersOf are the image's layers, each once. ErrDamaged when one is missing.
func (t *Tx) layersOf(img *Image) ([]*Layer, error) {
	var layers []*Layer
	seen := map[string]bool{"": true}
	for _, top := range append([]string{img.TopLayer}, img.MappedLayers...) {
		for id := top; !seen[id]; {
			l := t.LayerByID(id)
			if l == nil {
				return nil, errno.New(errno.ErrDamaged, "image %s: its layer %s is missing", img.ID, id)
			}
			seen[id] = true
			layers = append(layers, l)
			id = l.Parent
		}
	}
	return layers, nil
}

// ContainerSize is what a container takes, in bytes, as the peers count it:
// the files that its layer changed, its big data, and the files in its
// directory and run directory. Costly: every changed file is looked at. No
// lock is held.
func (s *Store) ContainerSize(ctx context.Context, ref string) (int64, error) {
	var total int64
	var c *Container
	err := s.View(ctx, func(t *Tx) (err error) {
		c, err = t.Container(ref)
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, size := range c.BigDataSizes {
		total += size
	}
	diff, err := s.DiffSize(ctx, "", c.Layer)
	if err != nil {
		return 0, fmt.Errorf("size of container %s: %w", c.ID, err)
	}
	total += diff
	for _, dir := range []string{s.objectDir(KindContainer, c.ID), s.runObjectDir(KindContainer, c.ID)} {
		size, err := filesSize(ctx, filepath.Join(dir, userdata))
		if err != nil {
			return 0, fmt.Errorf("size of container %s: %w", c.ID, err)
		}
		total += size
	}
	return total, nil
}

// filesSize adds up the regular files below dir; one that vanishes meanwhile,
// as a whole missing dir, counts nothing.
func filesSize(ctx context.Context, dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		var fi fs.FileInfo
		if err == nil && d.Type().IsRegular() {
			fi, err = d.Info()
		}
		if fi != nil {
			total += fi.Size()
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	})
	return total, err
}
