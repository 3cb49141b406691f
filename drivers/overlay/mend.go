//go:build linux

package overlay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
)

var _ drivers.Mender = (*Driver)(nil)

// Flaws implements drivers.Mender: link, lower, and the symlink in l/.
func (d *Driver) Flaws(f drivers.Family) ([]string, error) {
	dir, err := d.ownDir(f.ID)
	if err != nil || dir == "" {
		return nil, err
	}
	var flaws []string
	link, err := linkOf(dir)
	if err != nil {
		return append(flaws, "file link: "+err.Error()), nil
	}
	if to, err := os.Readlink(filepath.Join(d.home, linksName, link)); err != nil {
		flaws = append(flaws, fmt.Sprintf("link l/%s is missing", link))
	} else if id, _, ok := parseLinkTarget(to); !ok || id != f.ID {
		flaws = append(flaws, fmt.Sprintf("link l/%s leads to %q", link, clip(to)))
	}
	if want, ok := d.lowersWanted(f.Parent); ok {
		if have, err := lowersOf(dir); err != nil || !slices.Equal(have, want) {
			flaws = append(flaws, "file lower does not name its parents")
		}
	}
	return flaws, nil
}

// ownDir is the directory of a layer of the own home; "" when there is none.
func (d *Driver) ownDir(id string) (string, error) {
	if err := drivers.CheckID(id); err != nil {
		return "", err
	}
	dir := filepath.Join(d.home, id)
	if st, err := os.Lstat(dir); reserved(id) || err != nil || !st.IsDir() {
		return "", nil //nolint:nilerr // Has tells what is wrong then
	}
	return dir, nil
}

// lowersWanted is what the lower of a child of parent holds; false when the
// parent itself does not tell.
func (d *Driver) lowersWanted(parent string) ([]string, bool) {
	if parent == "" {
		return nil, true
	}
	dir, err := d.find(parent)
	if err != nil {
		return nil, false
	}
	link, err := linkOf(dir)
	if err != nil {
		return nil, false
	}
	lowers, err := lowersOf(dir)
	return append([]string{link}, lowers...), err == nil
}

// Mend implements drivers.Mender. The order: link (from the symlink in l/, a
// child's lower, or a new one), the symlink, lower; each by temporary file and
// rename, or by one system call.
func (d *Driver) Mend(f drivers.Family) error {
	dir, err := d.ownDir(f.ID)
	if err == nil && dir == "" {
		err = errno.New(errno.ErrDamaged, "its directory is missing from the home")
	}
	if err == nil {
		err = d.mend(dir, f)
	}
	if err != nil {
		return fmt.Errorf("mending layer %s: %w", f.ID, err)
	}
	return nil
}

func (d *Driver) mend(dir string, f drivers.Family) error {
	link, err := linkOf(dir)
	if err != nil {
		if link, err = d.lostLink(f); err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, "link"), link, 0o644); err != nil {
			return err
		}
	}
	if err := d.mendSymlink(link, f.ID); err != nil {
		return err
	}
	want, ok := d.lowersWanted(f.Parent)
	if !ok {
		return errno.New(errno.ErrDamaged, "its parent %s does not tell the layers below; mend that first", f.Parent)
	}
	have, err := lowersOf(dir)
	if err == nil && slices.Equal(have, want) {
		return d.mendEmpty(dir, want)
	}
	if len(want) == 0 {
		if err := os.Remove(filepath.Join(dir, "lower")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return d.mendEmpty(dir, want)
	}
	return writeFile(filepath.Join(dir, "lower"), linksName+"/"+strings.Join(want, ":"+linksName+"/"), 0o644)
}

// mendEmpty makes the mark of a base layer.
func (d *Driver) mendEmpty(dir string, lowers []string) error {
	if len(lowers) > 0 {
		return nil
	}
	return ensureDir(filepath.Join(dir, "empty"), 0o700)
}

// lostLink finds the link of a layer whose file link is gone.
func (d *Driver) lostLink(f drivers.Family) (string, error) {
	folder := filepath.Join(d.home, linksName)
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(folder, e.Name()))
		if id, _, ok := parseLinkTarget(to); err == nil && ok && id == f.ID && isLink(e.Name()) {
			return e.Name(), nil
		}
	}
	for _, child := range f.Children {
		dir, err := d.ownDir(child)
		if err != nil || dir == "" {
			continue
		}
		if lowers, err := lowersOf(dir); err == nil && len(lowers) > 0 {
			return lowers[0], nil
		}
	}
	return newLink(), nil
}

// mendSymlink makes the layer's symlink, or puts it right.
func (d *Driver) mendSymlink(link, id string) error {
	at := filepath.Join(d.home, linksName, link)
	to, err := os.Readlink(at)
	if got, _, ok := parseLinkTarget(to); err == nil && ok && got == id {
		return nil
	}
	if err == nil {
		if err := os.Remove(at); err != nil {
			return err
		}
	}
	return d.relink(link, target{d.home, id, "diff"})
}
