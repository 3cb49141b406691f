package drivers

import (
	"context"
	"fmt"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
)

const (
	// usageDepth is how deep directories may be nested, which bounds the
	// descriptors that are open at once.
	usageDepth = 1024
	// usageLinks is how many files with several names are remembered (16 bytes
	// each); any more are counted once a name.
	usageLinks = 1 << 20
)

// UsageBelow returns what the directory at path takes with all that is in it,
// on its filesystem; symlinks are not followed. What vanishes meanwhile is not
// counted. ErrTooLarge when directories are nested deeper than usageDepth.
func UsageBelow(ctx context.Context, path string) (u Usage, err error) {
	root, err := safefs.OpenRoot(path)
	if err != nil {
		return u, err
	}
	defer func() {
		if cerr := root.Close(); err == nil {
			err = cerr
		}
	}()
	st, err := root.Stat(".")
	if err != nil {
		return u, err
	}
	m := measure{ctx: ctx, dev: st.Dev, seen: map[uint64]struct{}{}}
	m.add(&st)
	if err := m.below(root, 0); err != nil {
		return u, fmt.Errorf("measuring %s: %w", path, err)
	}
	return m.sum, nil
}

type measure struct {
	ctx  context.Context
	dev  uint64
	seen map[uint64]struct{} // inodes with several names
	sum  Usage
}

func (m *measure) add(st *safefs.Stat) {
	if !st.IsDir() && st.Nlink > 1 {
		if _, again := m.seen[st.Ino]; again {
			return
		}
		if len(m.seen) < usageLinks {
			m.seen[st.Ino] = struct{}{}
		}
	}
	m.sum.Bytes += int64(st.Blocks) * 512
	m.sum.Inodes++
}

func (m *measure) below(d *safefs.Dir, depth int) error {
	return d.ReadDir(func(e safefs.Entry) error {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		st, err := d.Stat(e.Name)
		switch {
		case errno.Of(err) == errno.ErrUnknown.Errno():
			return nil
		case err != nil:
			return err
		case st.Dev != m.dev:
			return nil
		}
		m.add(&st)
		if !st.IsDir() {
			return nil
		}
		return m.dir(d, e.Name, depth+1)
	})
}

func (m *measure) dir(in *safefs.Dir, name string, depth int) (err error) {
	if depth > usageDepth {
		return errno.New(errno.ErrTooLarge, "directories are nested deeper than %d", usageDepth)
	}
	d, err := in.OpenDir(name)
	if no := errno.Of(err); no == errno.ErrUnknown.Errno() || no == errno.ErrNotDir.Errno() {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() {
		if cerr := d.Close(); err == nil {
			err = cerr
		}
	}()
	return m.below(d, depth)
}
