//go:build linux

package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/treecopy"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/mounts"
)

// find returns the directory of a published layer, in any store.
func (d *Driver) find(id string) (string, error) {
	if err := drivers.CheckID(id); err != nil {
		return "", err
	}
	if reserved(id) {
		return "", errno.New(errno.ErrBadValue, "overlay: %q is a name of the driver's own and no layer ID", id)
	}
	for _, home := range d.homes {
		dir := filepath.Join(home, id)
		st, err := os.Lstat(dir)
		switch {
		case err == nil && st.IsDir():
			return dir, nil
		case err == nil:
			return "", errno.New(errno.ErrDamaged, "overlay: layer %s: %s is not a directory", id, dir)
		case !errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("overlay: layer %s: %w", id, err)
		}
	}
	return "", errno.New(errno.ErrUnknown, "overlay: layer %s is not in the driver's home", id)
}

// Create implements drivers.Driver.
func (d *Driver) Create(ctx context.Context, stage string, spec drivers.LayerSpec) (drivers.Private, error) {
	if err := drivers.CheckID(spec.ID); err != nil {
		return drivers.Private{}, err
	}
	if reserved(spec.ID) {
		return drivers.Private{}, errno.New(errno.ErrBadValue, "overlay: %q cannot be a layer's ID: the driver's home has an entry of that name of its own", spec.ID)
	}
	p, err := d.create(ctx, stage, spec)
	if err != nil {
		return drivers.Private{}, fmt.Errorf("creating layer %s: %w", spec.ID, err)
	}
	return p, nil
}

func (d *Driver) create(ctx context.Context, stage string, spec drivers.LayerSpec) (drivers.Private, error) {
	dir := filepath.Join(d.cfg.Root, stage, spec.ID)
	p := drivers.Private{
		Dir:               filepath.Join(dir, "diff"),
		Style:             d.Style(),
		IgnoreChownErrors: d.opts.ignoreChown,
		ForceMask:         d.opts.forceMask,
		HasForceMask:      d.opts.hasForceMask,
	}
	link, lowers, err := d.place(spec)
	if err != nil {
		return p, err
	}
	if spec.Parent != "" {
		if p.Parents, err = d.Dirs(spec.Parent); err != nil {
			return p, err
		}
	}
	limits, err := d.limitsFor(spec)
	if err != nil {
		return p, err
	}
	if err := mkdir(dir, 0o700); err != nil {
		return p, err
	}
	if err := d.limit(dir, limits); err != nil {
		return p, err
	}
	if err := d.fill(ctx, p.Dir, spec); err != nil {
		return p, err
	}
	return p, d.furnish(dir, link, lowers)
}

// place finds the link and the lowers of the layer to be made.
func (d *Driver) place(spec drivers.LayerSpec) (link string, lowers []string, err error) {
	if source := spec.Source(); source != "" {
		from, err := d.find(source)
		if err != nil {
			return "", nil, err
		}
		if link, err = linkOf(from); err != nil {
			return "", nil, errno.New(errno.ErrDamaged, "overlay: layer %s: %w", source, err)
		}
		if lowers, err = lowersOf(from); err != nil {
			return "", nil, errno.New(errno.ErrDamaged, "overlay: layer %s: %w", source, err)
		}
		if spec.Twin != "" {
			link = newLink()
		}
		return link, lowers, nil
	}
	if spec.Parent == "" {
		return newLink(), nil, nil
	}
	parent, err := d.find(spec.Parent)
	if err != nil {
		return "", nil, fmt.Errorf("parent: %w", err)
	}
	own, err := linkOf(parent)
	if err != nil {
		return "", nil, errno.New(errno.ErrDamaged, "overlay: layer %s: %w", spec.Parent, err)
	}
	above, err := lowersOf(parent)
	if err != nil {
		return "", nil, errno.New(errno.ErrDamaged, "overlay: layer %s: %w", spec.Parent, err)
	}
	if len(above)+1 > MaxLowers {
		return "", nil, errno.New(errno.ErrNotSupported, "overlay: layer %s has %d layers below it already, and a mount takes %d: make one layer of some of them", spec.Parent, len(above), MaxLowers)
	}
	return newLink(), append([]string{own}, above...), nil
}

// fill makes diff: empty, or as a copy of From's.
func (d *Driver) fill(ctx context.Context, diff string, spec drivers.LayerSpec) error {
	if source := spec.Source(); source != "" {
		from, err := d.find(source)
		if err != nil {
			return err
		}
		return treecopy.Copy(ctx, filepath.Join(from, "diff"), diff)
	}
	perm := os.FileMode(0o555)
	if d.opts.hasForceMask {
		perm = d.opts.forceMask
	}
	if err := mkdir(diff, perm); err != nil {
		return err
	}
	if err := os.Chown(diff, spec.RootUID, spec.RootGID); err != nil && !d.opts.ignoreChown {
		return err
	}
	return nil
}

// furnish makes what stands beside diff. A layer without parents gets empty.
func (d *Driver) furnish(dir, link string, lowers []string) error {
	dirs := []string{"work", "merged"}
	if len(lowers) == 0 {
		dirs = append(dirs, "empty")
	}
	for _, name := range dirs {
		if err := mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return err
		}
	}
	if len(lowers) > 0 {
		text := linksName + "/" + strings.Join(lowers, ":"+linksName+"/")
		if err := newFile(filepath.Join(dir, "lower"), text); err != nil {
			return err
		}
	}
	return newFile(filepath.Join(dir, "link"), link)
}

// Publish implements drivers.Driver.
func (d *Driver) Publish(stage, id string) error {
	if err := drivers.CheckID(id); err != nil {
		return err
	}
	link, err := linkOf(filepath.Join(d.cfg.Root, stage, id))
	if err != nil {
		return fmt.Errorf("publishing layer %s: %w", id, err)
	}
	if err := mounts.Move(d.cfg.Bare, filepath.Join(stage, id), filepath.Join(homeName, id)); err != nil {
		return fmt.Errorf("publishing layer %s: %w", id, err)
	}
	if err := d.publishLink(link, id); err != nil {
		return fmt.Errorf("publishing layer %s: %w", id, err)
	}
	if err := d.syncLayer(stage, id); err != nil {
		return fmt.Errorf("publishing layer %s: %w", id, err)
	}
	return nil
}

// publishLink makes the symlink; one that is there already and right is kept.
func (d *Driver) publishLink(link, id string) error {
	at := filepath.Join(homeName, linksName, link)
	to := filepath.Join("..", id, "diff")
	err := unix.Symlinkat(to, int(d.cfg.Bare.Fd()), at)
	if errors.Is(err, unix.ENOENT) {
		if err := ensureDir(filepath.Join(d.home, linksName), 0o755); err != nil {
			return err
		}
		err = unix.Symlinkat(to, int(d.cfg.Bare.Fd()), at)
	}
	if errors.Is(err, unix.EEXIST) {
		old, rerr := os.Readlink(filepath.Join(d.home, linksName, link))
		if rerr == nil && old == to {
			err = nil
		}
	}
	if err != nil {
		return &os.LinkError{Op: "symlink", Old: to, New: at, Err: err}
	}
	return nil
}

// syncLayer makes a published layer durable, but for its content, which is
// the caller's, and the stage that it left.
func (d *Driver) syncLayer(stage, id string) error {
	dir := filepath.Join(homeName, id)
	paths := []string{stage, homeName, filepath.Join(homeName, linksName), dir, filepath.Join(dir, "link")}
	lower := filepath.Join(dir, "lower")
	switch _, err := os.Lstat(filepath.Join(d.cfg.Root, lower)); {
	case err == nil:
		paths = append(paths, lower)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return mounts.Sync(d.cfg.Bare, paths...)
}

// Exchange implements drivers.Driver. Both layers must have one link.
func (d *Driver) Exchange(stage, id string) error {
	if err := drivers.CheckID(id); err != nil {
		return err
	}
	staged, err := linkOf(filepath.Join(d.cfg.Root, stage, id))
	if err != nil {
		return fmt.Errorf("exchanging layer %s: %w", id, err)
	}
	published, err := linkOf(filepath.Join(d.home, id))
	if err != nil {
		return fmt.Errorf("exchanging layer %s: %w", id, err)
	}
	if staged != published {
		return errno.New(errno.ErrBadValue, "exchanging layer %s: the staged one was not made from it", id)
	}
	if err := d.idle(id); err != nil {
		return fmt.Errorf("exchanging layer %s: %w", id, err)
	}
	if err := mounts.Exchange(d.cfg.Bare, filepath.Join(stage, id), filepath.Join(homeName, id)); err != nil {
		return fmt.Errorf("exchanging layer %s: %w", id, err)
	}
	if err := errors.Join(d.unlimit(filepath.Join(d.cfg.Root, stage, id)), d.syncLayer(stage, id)); err != nil {
		return fmt.Errorf("exchanging layer %s: %w", id, err)
	}
	return nil
}

// idle refuses a layer that is mounted in this mount namespace.
func (d *Driver) idle(id string) error {
	merged := filepath.Join(d.home, id, "merged")
	is, err := mounts.IsMountPoint(merged)
	if err != nil {
		return err
	}
	if is {
		return errno.New(errno.ErrInUse, "%s is mounted: unmount it first", merged)
	}
	return nil
}

// Retire implements drivers.Driver.
func (d *Driver) Retire(stage, id string) error {
	if err := drivers.CheckID(id); err != nil {
		return err
	}
	if reserved(id) {
		return errno.New(errno.ErrBadValue, "overlay: %q is a name of the driver's own and no layer ID", id)
	}
	if err := d.idle(id); err != nil {
		return fmt.Errorf("retiring layer %s: %w", id, err)
	}
	if err := d.dropMapped(id); err != nil {
		return fmt.Errorf("retiring layer %s: %w", id, err)
	}
	if err := errors.Join(d.dropLinks(id), d.unlimit(filepath.Join(d.home, id))); err != nil {
		return fmt.Errorf("retiring layer %s: %w", id, err)
	}
	err := mounts.Move(d.cfg.Bare, filepath.Join(homeName, id), filepath.Join(stage, id))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = d.syncFolders(stage)
	}
	if err != nil {
		return fmt.Errorf("retiring layer %s: %w", id, err)
	}
	return nil
}

// mappedName is the folder of a layer in which its parents' homes are mounted
// with mapped owners while it is being mounted.
const mappedName = "mapped"

// dropMapped detaches what a killed mount left there.
func (d *Driver) dropMapped(id string) error {
	dir := filepath.Join(d.home, id, mappedName)
	left, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range left {
		err = errors.Join(err, mounts.DetachAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// syncFolders makes the entries of the home and of the stage durable.
func (d *Driver) syncFolders(stage string) error {
	paths := []string{stage, homeName}
	links := filepath.Join(homeName, linksName)
	if _, err := os.Lstat(filepath.Join(d.cfg.Root, links)); err == nil {
		paths = append(paths, links)
	}
	return mounts.Sync(d.cfg.Bare, paths...)
}

// dropLinks removes the symlinks that lead to the layer: the one that its link
// file names or, where that cannot be read, all that do.
func (d *Driver) dropLinks(id string) error {
	folder := filepath.Join(d.home, linksName)
	link, err := linkOf(filepath.Join(d.home, id))
	names := []string{link}
	if err != nil {
		entries, derr := os.ReadDir(folder)
		if derr != nil && !errors.Is(derr, fs.ErrNotExist) {
			return derr
		}
		names = names[:0]
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	for _, name := range names {
		to, err := os.Readlink(filepath.Join(folder, name))
		if err != nil {
			continue // not there, or no symlink: not ours
		}
		if to2, _, ok := parseLinkTarget(to); !ok || to2 != id {
			continue
		}
		if err := unix.Unlinkat(int(d.cfg.Bare.Fd()), filepath.Join(homeName, linksName, name), 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return &os.PathError{Op: "unlink", Path: filepath.Join(folder, name), Err: err}
		}
	}
	return nil
}

// Has implements drivers.Driver. Missing l/ links, work, merged and empty are
// no damage: Mount makes them again. That lower is missing shows only beside
// the layer's record (Flaws).
func (d *Driver) Has(id string) (bool, error) {
	if err := drivers.CheckID(id); err != nil {
		return false, err
	}
	dir := filepath.Join(d.home, id)
	st, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) || reserved(id):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("overlay: layer %s: %w", id, err)
	case !st.IsDir():
		return false, errno.New(errno.ErrDamaged, "overlay: layer %s: %s is not a directory", id, dir)
	}
	if st, err := os.Lstat(filepath.Join(dir, "diff")); err != nil || !st.IsDir() {
		return false, errno.New(errno.ErrDamaged, "overlay: layer %s has no directory diff", id)
	}
	if _, err := linkOf(dir); err != nil {
		return false, errno.New(errno.ErrDamaged, "overlay: layer %s: %w", id, err)
	}
	if _, err := lowersOf(dir); err != nil {
		return false, errno.New(errno.ErrDamaged, "overlay: layer %s: %w", id, err)
	}
	return true, nil
}

// Dirs implements drivers.Driver.
func (d *Driver) Dirs(id string) ([]string, error) {
	dir, err := d.find(id)
	if err != nil {
		return nil, err
	}
	lowers, err := lowersOf(dir)
	if err != nil {
		return nil, errno.New(errno.ErrDamaged, "overlay: layer %s: %w", id, err)
	}
	dirs := make([]string, 0, len(lowers)+1)
	dirs = append(dirs, filepath.Join(dir, "diff"))
	r := &resolver{homes: d.homes}
	for _, link := range lowers {
		t, _, err := r.resolve(link)
		if err != nil {
			return nil, errno.New(errno.ErrDamaged, "overlay: layer %s: %w", id, err)
		}
		dirs = append(dirs, filepath.Join(t.home, t.id, t.diff))
	}
	return dirs, nil
}
