package fsview

import (
	"context"
	"fmt"
	"os"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

// userDirOf finds, or makes, one of a container's two directories.
func userDirOf(run bool) func(context.Context, place, bool) (string, error) {
	return func(ctx context.Context, p place, make bool) (string, error) {
		kind, _ := p.row.obj.kind()
		path, runPath := p.tx.UserDirs(kind, p.id)
		if run {
			path = runPath
		}
		switch fi, err := os.Stat(path); {
		case err == nil && fi.IsDir():
			return path, nil
		case !make:
			return "", nil
		case run:
			return p.fs.store.ContainerRunDir(ctx, p.id)
		}
		return p.fs.store.ContainerDir(ctx, p.id)
	}
}

// userDir returns the root of the window on a container's directory, which is
// made if it is not there and the tree may be changed.
func (p place) userDir(ctx context.Context) (vnode.Node, error) {
	if p.fs.opts.Trees == nil {
		return nil, errno.New(errno.ErrNotSupported, "%s cannot be shown: this program serves no trees", p.label())
	}
	writable := p.fs.writable()
	path, err := p.row.window(ctx, p, writable == nil)
	switch {
	case err != nil:
		return nil, err
	case path == "":
		return nil, fmt.Errorf("%s was not made yet: %w", p.label(), writable)
	}
	n, err := p.fs.opts.Trees.Window(p.key(), path, nil)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", p.label(), err)
	}
	return n, nil
}
