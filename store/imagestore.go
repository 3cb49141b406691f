package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/mounts"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// A separate image store (Options.ImageStore) holds the images and their
// layers; containers and writable layers are in the graph root, whose own
// images are shown like those of an additional store. Layers of both places
// are one set with two files and two locks, and one driver each, which
// splitDriver makes one.

// split tells whether images have a root of their own.
func (s *Store) split() bool { return s.opts.ImageStore != "" }

// imageRoot is the graph root of images.
func (s *Store) imageRoot() string {
	if s.split() {
		return s.opts.ImageStore
	}
	return s.opts.GraphRoot
}

// imageLayersDir is the directory of a separate image store's layers.
func (s *Store) imageLayersDir() string {
	return filepath.Join(s.opts.ImageStore, s.opts.DriverName+"-"+KindLayer.Plural())
}

// roots are the graph roots that are written.
func (s *Store) roots() []string {
	if s.split() {
		return []string{s.opts.GraphRoot, s.opts.ImageStore}
	}
	return []string{s.opts.GraphRoot}
}

// shadowRoots are the graph roots of read-only objects, in the order in which
// they are counted.
func (s *Store) shadowRoots(k Kind) []string {
	if k == KindImage && s.split() {
		return append(slices.Clone(s.opts.ImageStores), s.opts.GraphRoot)
	}
	return s.opts.ImageStores
}

// layerRoot is the graph root that a layer is in.
func (s *Store) layerRoot(id string) string {
	if !s.split() {
		return s.opts.GraphRoot
	}
	if l := s.cur.Load().layers.records().byID[id]; l != nil && l.shadow == 0 {
		return s.rootOfFile(l.file)
	}
	if d, ok := s.driver.(*splitDriver); ok { // one that is being made is where its directories are
		return d.rootOf(id)
	}
	return s.opts.GraphRoot
}

func (s *Store) rootOfFile(file int) string {
	if file == fileImages {
		return s.opts.ImageStore
	}
	return s.opts.GraphRoot
}

// rootOf is where a layer is made.
func (s *Store) rootOf(spec LayerSpec) string {
	if spec.ReadOnly && !spec.Volatile {
		return s.imageRoot()
	}
	return s.opts.GraphRoot
}

// objectRoot is the graph root that an object's data is in.
func (s *Store) objectRoot(k Kind, id string) string {
	switch k {
	case KindLayer:
		return s.layerRoot(id)
	case KindImage:
		return s.imageRoot()
	}
	return s.opts.GraphRoot
}

// on returns the entry itself or, for another graph root than its own, one
// there that lives as long.
func (e *stageEntry) on(root string) (*stageEntry, error) {
	if root == e.root {
		return e, nil
	}
	if e.twin == nil {
		twin, err := e.newAt(root)
		if err != nil {
			return nil, err
		}
		e.twin = twin
	}
	return e.twin, nil
}

// rootOfPath is the graph root that a path is in; the entry's when in none.
func (e *stageEntry) rootOfPath(path string) string {
	root := e.root
	for i, r := range e.roots {
		if strings.HasPrefix(path, r+"/") && (i == 0 || len(r) > len(root) || !strings.HasPrefix(path, root+"/")) {
			root = r
		}
	}
	return root
}

// openSplit makes the two drivers of a store with a separate image store.
func (s *Store) openSplit(c drivers.Config) error {
	var err error
	if !s.opts.ReadOnly {
		if s.bareImages, err = mounts.OpenBare(s.opts.ImageStore); err != nil {
			return fmt.Errorf("open the image store: %w", err)
		}
	}
	images := c
	images.Root, images.Bare = s.opts.ImageStore, s.bareImages
	images.ImageStores = append([]string{c.Root}, c.ImageStores...)
	c.ImageStores = append([]string{s.opts.ImageStore}, c.ImageStores...)
	d := &splitDriver{roots: [2]string{c.Root, images.Root}}
	if d.Driver, err = s.opts.NewDriver(c); err != nil {
		return fmt.Errorf("driver %s: %w", s.opts.DriverName, err)
	}
	if d.images, err = s.opts.NewDriver(images); err != nil {
		return fmt.Errorf("driver %s of the image store: %w", s.opts.DriverName, err)
	}
	s.driver = d
	return nil
}

// splitDriver is the driver of the graph root, for whatever reads or mounts,
// and that of the image store for what is made or removed there. Which one is
// meant is told by the root that a stage is in, or a layer's directories.
type splitDriver struct {
	drivers.Driver
	images drivers.Driver
	roots  [2]string // the graph root and the image store
}

// ofStage is the driver of the root that holds the stage.
func (d *splitDriver) ofStage(stage string) drivers.Driver {
	if _, err := os.Lstat(filepath.Join(d.roots[1], stage)); err == nil {
		return d.images
	}
	return d.Driver
}

// ofLayer is the driver whose home holds the layer; the graph root's when none.
func (d *splitDriver) ofLayer(id string) drivers.Driver {
	if has, err := d.Driver.Has(id); has || err != nil {
		return d.Driver
	}
	if has, err := d.images.Has(id); has || err != nil {
		return d.images
	}
	return d.Driver
}

// rootOf is the graph root whose home holds the layer.
func (d *splitDriver) rootOf(id string) string {
	if d.ofLayer(id) == d.images {
		return d.roots[1]
	}
	return d.roots[0]
}

// Create implements drivers.Driver.
func (d *splitDriver) Create(ctx context.Context, stage string, spec drivers.LayerSpec) (drivers.Private, error) {
	return d.ofStage(stage).Create(ctx, stage, spec)
}

// Publish implements drivers.Driver.
func (d *splitDriver) Publish(stage, id string) error { return d.ofStage(stage).Publish(stage, id) }

// Exchange implements drivers.Driver.
func (d *splitDriver) Exchange(stage, id string) error { return d.ofStage(stage).Exchange(stage, id) }

// Retire implements drivers.Driver.
func (d *splitDriver) Retire(stage, id string) error { return d.ofStage(stage).Retire(stage, id) }

// Has implements drivers.Driver.
func (d *splitDriver) Has(id string) (bool, error) { return d.ofLayer(id).Has(id) }

// Mount implements drivers.Driver: layers of the image store are mounted
// there, as who uses it as his graph root does.
func (d *splitDriver) Mount(id string, o drivers.MountOptions) (mounts.Plan, error) {
	return d.ofLayer(id).Mount(id, o)
}

// List implements drivers.Driver.
func (d *splitDriver) List() ([]string, error) {
	own, err := d.Driver.List()
	if err != nil {
		return nil, err
	}
	images, err := d.images.List()
	own = append(own, images...)
	slices.Sort(own)
	return slices.Compact(own), err
}

// The optional interfaces are those of the two drivers, which are alike.

// Shift implements drivers.Shifter.
func (d *splitDriver) Shift() drivers.Shift { return drivers.ShiftOf(d.Driver) }

// Shutdown implements drivers.Shutdowner.
func (d *splitDriver) Shutdown(ctx context.Context) error {
	return errors.Join(drivers.Shutdown(ctx, d.Driver), drivers.Shutdown(ctx, d.images))
}

// Style implements drivers.Styler.
func (d *splitDriver) Style() whiteout.Style { return drivers.StyleOf(d.Driver) }

// NativeDiff implements drivers.Differ; the driver looks into both homes.
func (d *splitDriver) NativeDiff(id, parent string) (layertar.Source, bool, error) {
	if n, can := d.Driver.(drivers.Differ); can {
		return n.NativeDiff(id, parent)
	}
	return layertar.Source{}, false, nil
}

// Flaws implements drivers.Mender.
func (d *splitDriver) Flaws(f drivers.Family) ([]string, error) {
	return drivers.Flaws(d.ofLayer(f.ID), f)
}

// Mend implements drivers.Mender.
func (d *splitDriver) Mend(f drivers.Family) error { return drivers.Mend(d.ofLayer(f.ID), f) }

// Usage implements drivers.Usager.
func (d *splitDriver) Usage(ctx context.Context, id string) (drivers.Usage, error) {
	return drivers.UsageOf(ctx, d.ofLayer(id), id)
}

// Limits implements drivers.Limiter.
func (d *splitDriver) Limits(id string) (drivers.Limits, drivers.Usage, error) {
	return drivers.LimitsOf(d.ofLayer(id), id)
}

// SetLimits implements drivers.Limiter.
func (d *splitDriver) SetLimits(id string, l drivers.Limits) error {
	return drivers.SetLimits(d.ofLayer(id), id, l)
}

func checkImageStore(o *Options) error {
	switch {
	case o.ImageStore == "":
		return nil
	case !filepath.IsAbs(o.ImageStore):
		return errno.New(errno.ErrBadValue, "image store %q is not absolute; give a path that begins with /", o.ImageStore)
	case filepath.Clean(o.ImageStore) == filepath.Clean(o.GraphRoot):
		return errno.New(errno.ErrBadValue, "the image store %s is the graph root itself; leave it out", o.ImageStore)
	}
	o.ImageStore = filepath.Clean(o.ImageStore)
	return nil
}
