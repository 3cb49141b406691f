//go:build !linux || portable

package treecopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/spill"
	"github.com/plyfs/plyfs/internal/unix"
)

// chunk is how much is copied between two looks at the context, in bytes.
const chunk = 8 << 20

// copier is one Copy; it belongs to one goroutine.
type copier struct {
	ctx   context.Context
	root  *safefs.Dir  // of the destination
	links *spill.Links // first copies of files with several names, relative to root
}

// Copy makes dst, which must not exist, a copy of the directory src. Errors
// name the path below src. On error a part of dst may exist. Holes become
// zeros, and special files are ErrNotSupported on this system.
func Copy(ctx context.Context, src, dst string) (err error) {
	if err := os.Mkdir(dst, 0o700); err != nil {
		return fmt.Errorf("copying tree: %w", err)
	}
	s, err := safefs.OpenRoot(src)
	if err != nil {
		return fmt.Errorf("copying tree: %w", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	d, err := safefs.OpenRoot(dst)
	if err != nil {
		return fmt.Errorf("copying tree: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	c := &copier{ctx: ctx, root: d, links: spill.NewLinks()}
	defer func() { err = errors.Join(err, c.links.Close()) }()
	st, err := s.Stat(".")
	if err == nil {
		err = c.entries(s, d, ".")
	}
	if err == nil {
		err = finish(d, ".", st)
	}
	if err != nil {
		return fmt.Errorf("copying tree %s: %w", src, err)
	}
	return nil
}

func (c *copier) entries(s, d *safefs.Dir, rel string) error {
	return s.ReadDir(func(e safefs.Entry) error {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		name := path.Join(rel, e.Name)
		st, err := s.Stat(e.Name)
		if err == nil && st.IsDir() {
			return c.dir(s, d, e.Name, name, st)
		}
		if err == nil {
			err = c.file(s, d, e.Name, name, st)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
}

// dir copies a directory. Errors below carry their own path already.
func (c *copier) dir(s, d *safefs.Dir, name, rel string, st safefs.Stat) (err error) {
	if err := d.Mkdir(name, 0o700); err != nil {
		return fmt.Errorf("%s: %w", rel, err)
	}
	sub, err := s.OpenDir(name)
	if err != nil {
		return fmt.Errorf("%s: %w", rel, err)
	}
	defer func() { err = errors.Join(err, sub.Close()) }()
	dsub, err := d.OpenDir(name)
	if err != nil {
		return fmt.Errorf("%s: %w", rel, err)
	}
	defer func() { err = errors.Join(err, dsub.Close()) }()
	if err := c.entries(sub, dsub, rel); err != nil {
		return err
	}
	if err := finish(dsub, ".", st); err != nil {
		return fmt.Errorf("%s: %w", rel, err)
	}
	return nil
}

// file copies what is no directory, the second and further names of a file as
// links.
func (c *copier) file(s, d *safefs.Dir, name, rel string, st safefs.Stat) error {
	if st.Nlink > 1 {
		first, again, err := c.links.First(st.Dev, st.Ino, rel)
		if err != nil {
			return err
		}
		if again {
			return c.link(first, d, name)
		}
	}
	var err error
	switch st.Type() {
	case unix.S_IFREG:
		err = c.regular(s, d, name)
	case unix.S_IFLNK:
		var text string
		if text, err = s.Readlink(name); err == nil {
			err = d.Symlink(text, name)
		}
	default:
		err = d.Mknod(name, st.Mode, st.Rdev)
	}
	if err != nil {
		return err
	}
	return finish(d, name, st)
}

func (c *copier) link(first string, d *safefs.Dir, name string) error {
	dir, err := c.root.OpenDirAt(path.Dir(first), safefs.NoSymlinks)
	if err != nil {
		return err
	}
	return errors.Join(dir.Link(path.Base(first), d, name), dir.Close())
}

func (c *copier) regular(s, d *safefs.Dir, name string) error {
	sf, err := s.Open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	df, err := d.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return errors.Join(err, sf.Close())
	}
	for err == nil {
		if err = c.ctx.Err(); err == nil {
			_, err = io.CopyN(df, sf, chunk)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, df.Close(), sf.Close())
}

// finish gives name below d ("." for d itself) the owner, mode and times of st.
func finish(d *safefs.Dir, name string, st safefs.Stat) error {
	if safefs.HasOwners {
		if err := d.Chown(name, int(st.UID), int(st.GID)); err != nil {
			return err
		}
	}
	if st.Type() != unix.S_IFLNK {
		if err := d.Chmod(name, st.Mode&0o7777); err != nil {
			return err
		}
	}
	return d.Utimens(name, st.Atime, st.Mtime)
}
