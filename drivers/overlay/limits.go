//go:build linux

package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/mounts"
	"github.com/plyfs/plyfs/internal/projquota"
	"github.com/plyfs/plyfs/internal/safefs"
)

// Layers are held to their limits by project quotas of the filesystem: the
// directory of a bounded layer is a project of its own. Where there are none,
// our mount program can count what its mounts write: limitsName then keeps the
// bounds beside diff, for the next mount.
const limitsName = "limits"

// ourProgram begins what our mount program prints as its version.
const ourProgram = "fuse-overlay: version"

// holder is what holds layers to limits.
type holder uint8

const (
	heldByProject holder = iota
	heldByProgram
)

// holder finds out what would hold a layer to limits here. ErrNotSupported,
// with the reason, when nothing would.
func (d *Driver) holder() (h holder, err error) {
	home, err := os.Open(d.home)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, home.Close()) }()
	if err = projquota.Enforced(home); err == nil {
		_, inherited, err := projquota.Of(home)
		if err == nil && inherited {
			err = errno.New(errno.ErrNotSupported, "overlay: %s hands its project on to all that is made in it, so layers cannot have projects of their own: take that flag away (chattr -P)", d.home)
		}
		return heldByProject, err
	}
	if d.opts.program != "" && isOurs(d.opts.program) {
		return heldByProgram, nil
	}
	return 0, errno.New(errno.ErrNotSupported, "overlay: storage option overlay.size and overlay.inodes only supported with project quotas, or with fuse-overlay as mount_program. Found %s: %w", d.probe.backing, err)
}

// isOurs asks a mount program for its version.
func isOurs(program string) bool {
	out, err := exec.Command(program, "--version").Output()
	return err == nil && strings.HasPrefix(string(out), ourProgram)
}

// limitsFor are the bounds of a new layer.
func (d *Driver) limitsFor(spec drivers.LayerSpec) (drivers.Limits, error) {
	l := spec.Limits
	if spec.From != "" && l == (drivers.Limits{}) {
		old, _, err := d.Limits(spec.From)
		return old, err
	}
	if spec.Writable && l.Bytes == 0 {
		l.Bytes = d.opts.limits.Bytes
	}
	if spec.Writable && l.Inodes == 0 {
		l.Inodes = d.opts.limits.Inodes
	}
	return l, l.Check()
}

// limit bounds a layer in the making, whose directory is empty still.
func (d *Driver) limit(dir string, l drivers.Limits) (err error) {
	if l == (drivers.Limits{}) {
		return nil
	}
	h, err := d.holder()
	if err != nil {
		return err
	}
	if h == heldByProgram {
		return newFile(filepath.Join(dir, limitsName), limitsText(l))
	}
	return withDir(dir, func(f *os.File) error {
		id, err := projquota.Free(f)
		if err == nil {
			err = projquota.Join(f, id, true)
		}
		if err != nil {
			return err
		}
		return projquota.Bound(f, id, projquota.Bounds(l))
	})
}

func withDir(dir string, fn func(*os.File) error) (err error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(fn(f), f.Close())
}

// project returns the project that the layer in dir has for itself, 0 for none.
func (d *Driver) project(f *os.File) (id uint32, err error) {
	id, _, err = projquota.Of(f)
	if err != nil || id == 0 {
		return 0, err
	}
	var homes uint32
	err = withDir(d.home, func(h *os.File) (err error) {
		homes, _, err = projquota.Of(h)
		return err
	})
	if homes == id {
		return 0, err
	}
	return id, err
}

// Limits implements drivers.Limiter.
func (d *Driver) Limits(id string) (l drivers.Limits, u drivers.Usage, err error) {
	dir, err := d.find(id)
	if err != nil {
		return l, u, err
	}
	if l, err = readLimits(dir); err != nil {
		return l, u, errno.New(errno.ErrDamaged, "overlay: layer %s: %w", id, err)
	}
	if l != (drivers.Limits{}) {
		u, err = drivers.UsageBelow(context.Background(), filepath.Join(dir, "diff"))
		return l, u, err
	}
	err = withDir(dir, func(f *os.File) error {
		if projquota.Enforced(f) != nil {
			return nil
		}
		own, err := d.project(f)
		if err != nil || own == 0 {
			return err
		}
		b, used, err := projquota.Look(f, own)
		if l = drivers.Limits(b); l != (drivers.Limits{}) {
			u = drivers.Usage(used)
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("limits of layer %s: %w", id, err)
	}
	return l, u, err
}

// SetLimits implements drivers.Limiter. A mount program learns of new bounds
// when it mounts the layer next.
func (d *Driver) SetLimits(id string, l drivers.Limits) error {
	dir, err := d.find(id)
	if err != nil {
		return err
	}
	if filepath.Dir(dir) != d.home {
		return errno.New(errno.ErrReadOnly, "overlay: layer %s is in a read-only store and cannot be bounded", id)
	}
	if old, _, err := d.Limits(id); err != nil || old == l {
		return err
	}
	h, err := d.holder()
	if err == nil && h == heldByProgram {
		err = writeLimits(dir, l)
	} else if err == nil {
		err = withDir(dir, func(f *os.File) error { return d.setProject(f, id, l) })
	}
	if err != nil {
		return fmt.Errorf("limit layer %s: %w", id, err)
	}
	return nil
}

// setProject bounds a published layer, which becomes a project if it is none.
func (d *Driver) setProject(f *os.File, id string, l drivers.Limits) error {
	own, err := d.project(f)
	if err != nil {
		return err
	}
	if own != 0 {
		return projquota.Bound(f, own, projquota.Bounds(l))
	}
	// Renames between directories of two projects fail, so nobody may write.
	if err := d.idle(id); err != nil {
		return err
	}
	if own, err = projquota.Free(f); err != nil {
		return err
	}
	if err := projquota.Bound(f, own, projquota.Bounds(l)); err != nil {
		return err
	}
	return adopt(f, own)
}

// adopt makes a directory, and the files and directories below it, those of a
// project. What is neither takes no room, and stays what it is. It holds as
// many descriptors as the tree is deep.
func adopt(f *os.File, project uint32) (err error) {
	if err := projquota.Join(f, project, true); err != nil {
		return err
	}
	at, err := safefs.FromFile(f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	return at.ReadDir(func(e safefs.Entry) error {
		st, err := at.Stat(e.Name)
		if err != nil || !st.IsDir() && st.Type() != unix.S_IFREG {
			return err
		}
		g, err := at.Open(e.Name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		if st.IsDir() {
			err = adopt(g, project)
		} else {
			err = projquota.Join(g, project, false)
		}
		return errors.Join(err, g.Close())
	})
}

// unlimit lets go of the quota of a layer that is about to be removed.
func (d *Driver) unlimit(dir string) error {
	err := withDir(dir, func(f *os.File) error {
		if projquota.Enforced(f) != nil {
			return nil
		}
		own, err := d.project(f)
		if err != nil || own == 0 {
			return err
		}
		return projquota.Bound(f, own, projquota.Bounds{})
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return err
}

// programLimits are the mount options that hold a mount by a program to the
// layer's bounds.
func programLimits(p mounts.Plan, dir string) ([]string, error) {
	if p.Program == "" || p.Upper == "" {
		return nil, nil
	}
	l, err := readLimits(dir)
	var options []string
	if l.Bytes > 0 {
		options = append(options, "size="+strconv.FormatInt(l.Bytes, 10))
	}
	if l.Inodes > 0 {
		options = append(options, "inodes="+strconv.FormatInt(l.Inodes, 10))
	}
	return options, err
}

func limitsText(l drivers.Limits) string { return fmt.Sprintf("%d %d\n", l.Bytes, l.Inodes) }

func writeLimits(dir string, l drivers.Limits) error {
	path := filepath.Join(dir, limitsName)
	if l != (drivers.Limits{}) {
		return writeFile(path, limitsText(l), 0o600)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func readLimits(dir string) (l drivers.Limits, err error) {
	text, err := readSmall(filepath.Join(dir, limitsName))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	if _, err := fmt.Sscanf(text, "%d %d\n", &l.Bytes, &l.Inodes); err != nil || l.Check() != nil {
		return l, fmt.Errorf("%s holds %q, not two limits", filepath.Join(dir, limitsName), clip(text))
	}
	return l, nil
}
