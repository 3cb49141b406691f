package vfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/treecopy"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/mounts"
	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// home is the folder of the layers, relative to a graph root.
const home = "vfs/dir"

// Driver implements drivers.Driver. It is immutable.
type Driver struct {
	cfg         drivers.Config
	stores      []string // graph roots of read-only stores, in look-up order
	ignoreChown bool
}

// New makes the driver. The home is made when the root can be written.
// Options: ignore_chown_errors, imagestore. mountopt is refused, as by the
// peers, since nothing is mounted.
func New(cfg drivers.Config) (drivers.Driver, error) {
	d := &Driver{cfg: cfg, stores: append([]string(nil), cfg.ImageStores...), ignoreChown: !safefs.HasOwners}
	for _, o := range cfg.Options {
		if err := d.option(o); err != nil {
			return nil, err
		}
	}
	err := os.MkdirAll(filepath.Join(cfg.Root, home), 0o700)
	if err != nil && !errors.Is(err, fs.ErrPermission) && errno.Of(err) != errno.ErrReadOnly.Errno() {
		return nil, fmt.Errorf("vfs: making the home: %w", err)
	}
	return d, nil
}

func (d *Driver) option(o drivers.Option) error {
	switch o.Key {
	case "override_kernel_check":
		return nil
	case "mountopt":
		return errno.New(errno.ErrNotSupported, "vfs driver does not support mount options: nothing is mounted; leave mountopt out")
	case "imagestore", "additionalimagestore":
		d.stores = append(d.stores, o.Value)
		return nil
	case "ignore_chown_errors":
		v, err := strconv.ParseBool(o.Value)
		if err != nil {
			return errno.New(errno.ErrBadValue, "vfs: option ignore_chown_errors is %q: say true or false", o.Value)
		}
		d.ignoreChown = v || !safefs.HasOwners
		return nil
	case "size", "inodes":
		return errno.New(errno.ErrNotSupported, "vfs driver does not support %s options: a plain directory has no quota; leave it out or use overlay on xfs", o.Key)
	}
	return errno.New(errno.ErrBadValue, "vfs: unknown option %q: known are ignore_chown_errors, imagestore", o.Key)
}

// Name implements drivers.Driver.
func (d *Driver) Name() string { return "vfs" }

// Status implements drivers.Driver: the peers print nothing for vfs.
func (d *Driver) Status() [][2]string { return nil }

func (d *Driver) path(id string) string { return filepath.Join(d.cfg.Root, home, id) }

// find returns the directory of a published layer, in any store.
func (d *Driver) find(id string) (string, error) {
	if err := drivers.CheckID(id); err != nil {
		return "", err
	}
	for _, root := range append([]string{d.cfg.Root}, d.stores...) {
		p := filepath.Join(root, home, id)
		st, err := os.Lstat(p)
		switch {
		case err == nil && st.IsDir():
			return p, nil
		case err == nil:
			return "", errno.New(errno.ErrDamaged, "vfs: layer %s: %s is not a directory", id, p)
		case !errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("vfs: layer %s: %w", id, err)
		}
	}
	return "", errno.New(errno.ErrUnknown, "vfs: layer %s is not in the driver's home", id)
}

// Create implements drivers.Driver.
func (d *Driver) Create(ctx context.Context, stage string, spec drivers.LayerSpec) (drivers.Private, error) {
	if err := drivers.CheckID(spec.ID); err != nil {
		return drivers.Private{}, err
	}
	if spec.Limits != (drivers.Limits{}) {
		return drivers.Private{}, drivers.NoLimits(d.Name())
	}
	p := drivers.Private{
		Dir:               filepath.Join(d.cfg.Root, stage, spec.ID),
		Style:             whiteout.Apply,
		IgnoreChownErrors: d.ignoreChown,
	}
	from := spec.Source()
	if from == "" {
		from = spec.Parent
	}
	if spec.Parent != "" {
		parent, err := d.find(spec.Parent)
		if err != nil {
			return drivers.Private{}, fmt.Errorf("creating layer %s: parent: %w", spec.ID, err)
		}
		p.Parents = []string{parent}
	}
	if from == "" {
		return p, d.createBase(p.Dir, spec)
	}
	src, err := d.find(from)
	if err != nil {
		return drivers.Private{}, fmt.Errorf("creating layer %s: %w", spec.ID, err)
	}
	if err := treecopy.Copy(ctx, src, p.Dir); err != nil {
		return drivers.Private{}, fmt.Errorf("creating layer %s: %w", spec.ID, err)
	}
	return p, nil
}

func (d *Driver) createBase(dir string, spec drivers.LayerSpec) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("creating layer %s: %w", spec.ID, err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("creating layer %s: %w", spec.ID, err)
	}
	if err := os.Chown(dir, spec.RootUID, spec.RootGID); err != nil && !d.ignoreChown {
		return fmt.Errorf("creating layer %s: %w", spec.ID, err)
	}
	return nil
}

// Publish implements drivers.Driver.
func (d *Driver) Publish(stage, id string) error {
	if err := drivers.CheckID(id); err != nil {
		return err
	}
	if err := mounts.Rename(d.cfg.Bare, filepath.Join(stage, id), filepath.Join(home, id)); err != nil {
		return fmt.Errorf("publishing layer %s: %w", id, err)
	}
	return nil
}

// Exchange implements drivers.Driver.
func (d *Driver) Exchange(stage, id string) error {
	if err := drivers.CheckID(id); err != nil {
		return err
	}
	if err := mounts.Exchange(d.cfg.Bare, filepath.Join(stage, id), filepath.Join(home, id)); err != nil {
		return fmt.Errorf("exchanging layer %s: %w", id, err)
	}
	return nil
}

// Retire implements drivers.Driver.
func (d *Driver) Retire(stage, id string) error {
	if err := drivers.CheckID(id); err != nil {
		return err
	}
	err := mounts.Rename(d.cfg.Bare, filepath.Join(home, id), filepath.Join(stage, id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("retiring layer %s: %w", id, err)
	}
	return nil
}

// Has implements drivers.Driver.
func (d *Driver) Has(id string) (bool, error) {
	if err := drivers.CheckID(id); err != nil {
		return false, err
	}
	st, err := os.Lstat(d.path(id))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("vfs: layer %s: %w", id, err)
	case !st.IsDir():
		return false, errno.New(errno.ErrDamaged, "vfs: layer %s: %s is not a directory", id, d.path(id))
	}
	return true, nil
}

// List implements drivers.Driver.
func (d *Driver) List() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(d.cfg.Root, home))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("vfs: listing layers: %w", err)
	}
	ids := make([]string, 0, len(entries))
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids, nil
}

// Dirs implements drivers.Driver: one directory, which is the whole tree.
func (d *Driver) Dirs(id string) ([]string, error) {
	p, err := d.find(id)
	if err != nil {
		return nil, err
	}
	return []string{p}, nil
}

// Mount implements drivers.Driver: nothing is mounted; a read-only wish cannot
// be enforced and is the caller's to keep.
func (d *Driver) Mount(id string, _ drivers.MountOptions) (mounts.Plan, error) {
	p, err := d.find(id)
	if err != nil {
		return mounts.Plan{}, err
	}
	return mounts.Plan{Target: p}, nil
}
