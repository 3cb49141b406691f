//go:build linux && !portable

package treecopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/spill"
)

// batch is how many names of a directory are read at once.
const batch = 1024

// copier is one Copy; it belongs to one goroutine.
type copier struct {
	ctx     context.Context
	root    *os.File     // of the destination
	links   *spill.Links // first copies of files with several names, relative to root
	noClone bool         // the filesystem has refused FICLONE
	noRange bool         // … and copy_file_range
}

// Copy makes dst, which must not exist, a copy of the directory src. Errors
// name the path below src. On error a part of dst may exist.
func Copy(ctx context.Context, src, dst string) (err error) {
	if err := os.Mkdir(dst, 0o700); err != nil {
		return fmt.Errorf("copying tree: %w", err)
	}
	s, err := openDir(unix.AT_FDCWD, src)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	d, err := openDir(unix.AT_FDCWD, dst)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	c := &copier{ctx: ctx, root: d, links: spill.NewLinks()}
	defer func() { err = errors.Join(err, c.links.Close()) }()
	if err := c.entries(s, d, "."); err != nil {
		return fmt.Errorf("copying tree %s: %w", src, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(s.Fd()), &st); err != nil {
		return fmt.Errorf("copying tree %s: %w", src, err)
	}
	if err := finishOpen(s, d, &st); err != nil {
		return fmt.Errorf("copying tree %s: %w", src, err)
	}
	return nil
}

func openDir(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (c *copier) entries(s, d *os.File, rel string) error {
	for {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		names, err := s.Readdirnames(batch)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
		for _, name := range names {
			if err := c.entry(s, d, name, filepath.Join(rel, name)); err != nil {
				return err
			}
		}
	}
}

// entry copies one name. Errors below carry their own path already.
func (c *copier) entry(s, d *os.File, name, rel string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(s.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("%s: %w", rel, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return c.dir(s, d, name, rel, &st)
	}
	done, err := c.linked(d, name, rel, &st)
	if err == nil && !done {
		err = c.leaf(s, d, name, &st)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", rel, err)
	}
	return nil
}

func (c *copier) dir(s, d *os.File, name, rel string, st *unix.Stat_t) (err error) {
	if err := unix.Mkdirat(int(d.Fd()), name, 0o700); err != nil {
		return fmt.Errorf("%s: mkdir: %w", rel, err)
	}
	sub, err := openDir(int(s.Fd()), name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sub.Close()) }()
	dsub, err := openDir(int(d.Fd()), name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dsub.Close()) }()
	if err := c.entries(sub, dsub, rel); err != nil {
		return err
	}
	if err := finishOpen(sub, dsub, st); err != nil {
		return fmt.Errorf("%s: %w", rel, err)
	}
	return nil
}

// linked makes the second and further names of a file; done is false for the
// first.
func (c *copier) linked(d *os.File, name, rel string, st *unix.Stat_t) (done bool, err error) {
	if st.Nlink < 2 {
		return false, nil
	}
	first, again, err := c.links.First(st.Dev, st.Ino, rel)
	if !again || err != nil {
		return false, err
	}
	if err := unix.Linkat(int(c.root.Fd()), first, int(d.Fd()), name, 0); err != nil {
		return false, fmt.Errorf("hard link to %s: %w", first, err)
	}
	return true, nil
}

func (c *copier) leaf(s, d *os.File, name string, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return c.regular(s, d, name)
	case unix.S_IFLNK:
		if err := symlink(s, d, name, st); err != nil {
			return err
		}
	default:
		if err := unix.Mknodat(int(d.Fd()), name, st.Mode&unix.S_IFMT|0o600, int(st.Rdev)); err != nil {
			return fmt.Errorf("mknod: %w", err)
		}
	}
	return finishNamed(s, d, name, st)
}

func symlink(s, d *os.File, name string, st *unix.Stat_t) error {
	buf := make([]byte, st.Size+1)
	if len(buf) < unix.PathMax {
		buf = make([]byte, unix.PathMax)
	}
	n, err := unix.Readlinkat(int(s.Fd()), name, buf)
	if err != nil {
		return fmt.Errorf("readlink: %w", err)
	}
	if err := unix.Symlinkat(string(buf[:n]), int(d.Fd()), name); err != nil {
		return fmt.Errorf("symlink: %w", err)
	}
	return nil
}

func (c *copier) regular(s, d *os.File, name string) (err error) {
	sfd, err := unix.Openat(int(s.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	sf := os.NewFile(uintptr(sfd), name)
	defer func() { err = errors.Join(err, sf.Close()) }()
	var st unix.Stat_t
	if err := unix.Fstat(sfd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("changed its type while being copied")
	}
	dfd, err := unix.Openat(int(d.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	df := os.NewFile(uintptr(dfd), name)
	defer func() { err = errors.Join(err, df.Close()) }()
	if err := c.data(sf, df, st.Size); err != nil {
		return err
	}
	return finishOpen(sf, df, &st)
}
