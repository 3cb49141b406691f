//go:build linux

package overlay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/userns"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/mounts"
)

// Mount implements drivers.Driver. A layer of a read-only store has its mount
// point in the run root and can only be mounted read-only.
func (d *Driver) Mount(id string, o drivers.MountOptions) (mounts.Plan, error) {
	dir, err := d.find(id)
	if err != nil {
		return mounts.Plan{}, err
	}
	p, err := d.plan(dir, id, o)
	if err != nil {
		return mounts.Plan{}, fmt.Errorf("mounting layer %s: %w", id, err)
	}
	return p, nil
}

func (d *Driver) plan(dir, id string, o drivers.MountOptions) (mounts.Plan, error) {
	own := filepath.Dir(dir) == d.home
	if !own && !o.ReadOnly {
		return mounts.Plan{}, errno.New(errno.ErrReadOnly, "overlay: layer %s is in the read-only store %s: mount it read-only", id, filepath.Dir(filepath.Dir(dir)))
	}
	p := mounts.Plan{Target: filepath.Join(dir, "merged"), Type: homeName, Program: d.opts.program, Dir: d.home}
	if own && !d.opts.skipMountHome {
		p.Home = d.home
	}
	if !own {
		p.Target = filepath.Join(d.cfg.RunRoot, homeName, "merged", id)
	}
	if err := ensureDir(p.Target, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		// A dead mount program's mount answers ENOTCONN: something is mounted.
		if is, merr := mounts.IsMountPoint(p.Target); merr != nil || !is {
			return mounts.Plan{}, err
		}
	}
	var err error
	if p.Lowers, err = d.mountLowers(dir, id); err != nil {
		return mounts.Plan{}, err
	}
	if err := d.mapLowers(&p, dir, o.Maps); err != nil {
		return mounts.Plan{}, err
	}
	if err := d.upper(&p, dir, o.ReadOnly); err != nil {
		return mounts.Plan{}, err
	}
	d.mountOptions(&p, o)
	bounds, err := programLimits(p, dir)
	p.Options = append(p.Options, bounds...)
	return p, err
}

// mountLowers are the parents, by their short names; missing ones are made.
func (d *Driver) mountLowers(dir, id string) ([]string, error) {
	links, err := lowersOf(dir)
	if err != nil {
		return nil, errno.New(errno.ErrDamaged, "overlay: layer %s: %w", id, err)
	}
	if len(links) > MaxLowers {
		return nil, errno.New(errno.ErrNotSupported, "overlay: layer %s has %d layers below it, and a mount takes %d", id, len(links), MaxLowers)
	}
	r := &resolver{homes: d.homes}
	paths := make([]string, 0, len(links)+1)
	for _, link := range links {
		t, missing, err := r.resolve(link)
		if err != nil {
			return nil, errno.New(errno.ErrDamaged, "overlay: layer %s: %w", id, err)
		}
		if missing && t.home == d.home {
			if err := d.relink(link, t); err != nil {
				return nil, err
			}
		}
		short := filepath.Join(t.home, linksName, link)
		if _, err := os.Stat(short); err != nil {
			short = filepath.Join(t.home, t.id, t.diff)
		}
		if _, err := os.Stat(short); err != nil {
			return nil, errno.New(errno.ErrDamaged, "overlay: layer %s needs layer %s, whose content is missing: %w", id, t.id, err)
		}
		paths = append(paths, short)
	}
	return paths, nil
}

// mapLowers has the plan show the parents through maps: from a mapped mount of
// their home, at mapped/N of the layer as the peers have it, or by the options
// of the mount program.
func (d *Driver) mapLowers(p *mounts.Plan, dir string, maps idmap.Maps) error {
	if maps.Empty() || d.Shift() == drivers.NoShift {
		return nil
	}
	if p.Program != "" {
		for key, ranges := range map[string][]idmap.Range{"uidmapping": maps.UIDs, "gidmapping": maps.GIDs} {
			if len(ranges) > 0 {
				p.Options = append(p.Options, programMap(key, ranges))
			}
		}
		return nil
	}
	at := map[string]string{}
	for i, lower := range p.Lowers {
		home := d.homeOf(lower)
		if at[home] == "" {
			at[home] = filepath.Join(dir, mappedName, strconv.Itoa(len(at)))
			if err := errors.Join(ensureDir(filepath.Dir(at[home]), 0o700), ensureDir(at[home], 0o700)); err != nil {
				return err
			}
			p.Mapped = append(p.Mapped, mounts.Mapping{From: home, At: at[home], Maps: maps})
		}
		p.Lowers[i] = filepath.Join(at[home], strings.TrimPrefix(lower, home))
	}
	return nil
}

// homeOf returns the home that path is in.
func (d *Driver) homeOf(path string) string {
	for _, home := range d.homes {
		if strings.HasPrefix(path, home+"/") {
			return home
		}
	}
	return d.home
}

// programMap writes a map as podman gives it to mount programs.
func programMap(key string, ranges []idmap.Range) string {
	text := key + "="
	for _, r := range ranges {
		text += ":" + r.String()
	}
	return text
}

// upper makes the plan writable, or puts the layer itself on top of the lowers.
func (d *Driver) upper(p *mounts.Plan, dir string, readOnly bool) error {
	diff := filepath.Join(dir, "diff")
	if st, err := os.Lstat(diff); err != nil || !st.IsDir() {
		return errno.New(errno.ErrDamaged, "overlay: %s is not a directory", diff)
	}
	if !readOnly && len(p.Lowers) > 0 {
		p.Upper, p.Work = diff, filepath.Join(dir, "work")
		return d.prepareWork(p.Work, p.Target)
	}
	if !readOnly {
		empty, err := d.emptyDir(dir)
		p.Lowers, p.Upper, p.Work = []string{empty}, diff, filepath.Join(dir, "work")
		return errors.Join(err, d.prepareWork(p.Work, p.Target))
	}
	p.Lowers = append([]string{diff}, p.Lowers...)
	if len(p.Lowers) == 1 { // without an upper the kernel wants two
		empty, err := d.emptyDir(dir)
		if err != nil {
			return err
		}
		p.Lowers = append(p.Lowers, empty)
	}
	return nil
}

// emptyDir returns an empty directory to stand below a base layer; that of a
// read-only store, where nothing is made, is in the run root.
func (d *Driver) emptyDir(dir string) (string, error) {
	empty := filepath.Join(dir, "empty")
	own := filepath.Dir(dir) == d.home
	var err error
	if own {
		err = ensureDir(empty, 0o700)
	}
	if !own || err != nil && cannotWrite(err) {
		empty = filepath.Join(d.cfg.RunRoot, homeName, "empty")
		err = ensureDir(empty, 0o700)
	}
	return empty, err
}

// prepareWork makes a missing work directory and takes away the mark of an
// earlier volatile mount, with which the kernel refuses the upper for good.
func (d *Driver) prepareWork(work, merged string) error {
	if err := ensureDir(work, 0o700); err != nil {
		return err
	}
	// A mount that lives keeps its mark: callers ask for a plan then as well,
	// to learn the target.
	if is, err := mounts.IsMountPoint(merged); err != nil || is {
		return err
	}
	mark := filepath.Join(work, "work", "incompat", "volatile")
	if _, err := os.Lstat(mark); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.RemoveAll(mark); err != nil {
		return fmt.Errorf("removing the mark of an earlier volatile mount: %w", err)
	}
	d.log.WithField("work", work).Debug("overlay: mounted volatile before: what it wrote last was lost if the machine crashed since")
	return nil
}

func (d *Driver) mountOptions(p *mounts.Plan, o drivers.MountOptions) {
	flags, data := mounts.SplitOptions(o.Options)
	p.Flags = d.opts.flags | flags
	p.Options = append(append(p.Options, d.opts.data...), data...)
	if o.Volatile && p.Upper != "" && d.probe.volatile && !contains(p.Options, "volatile") {
		p.Options = append(p.Options, "volatile")
	}
	if p.Program == "" && userns.RunningInUserNS() && !contains(p.Options, "userxattr") {
		p.Options = append(p.Options, "userxattr")
	}
	if p.Program != "" && d.opts.hasForceMask {
		p.Options = append(p.Options, "xattr_permissions=2")
	}
	if o.Label != "" {
		p.Options = append(p.Options, `context="`+o.Label+`"`)
	}
}

func contains(list []string, word string) bool {
	for _, w := range list {
		if w == word {
			return true
		}
	}
	return false
}

// NativeDiff implements drivers.Differ: the layer's own directory holds what
// changed, when parent is its own. Not with a mount program, whose marks and
// owners only it can read, and not with metacopy or redirects, whose content
// is partly below.
func (d *Driver) NativeDiff(id, parent string) (layertar.Source, bool, error) {
	if !d.probe.nativeDiff {
		return layertar.Source{}, false, nil
	}
	dirs, err := d.Dirs(id)
	if err != nil {
		return layertar.Source{}, false, err
	}
	switch {
	case parent == "" && len(dirs) > 1, parent != "" && len(dirs) == 1:
		return layertar.Source{}, false, nil
	case parent != "":
		above, err := d.Dirs(parent)
		if err != nil {
			return layertar.Source{}, false, err
		}
		if above[0] != dirs[1] {
			return layertar.Source{}, false, nil
		}
	}
	return layertar.Source{Upper: dirs[0], UpperStyle: d.Style(), Lowers: dirs[1:]}, true, nil
}
