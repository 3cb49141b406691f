package fsview

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

// Visit is called for a file that Descend comes to: path is as it would be
// typed, depth 0 what Descend was given, last whether it is the last entry of
// its directory. It may return fs.SkipDir for a directory, whose entries are
// then passed over; any other error ends the walk.
type Visit func(path string, e Entry, depth int, last bool) error

// Descend visits the file at path and, of a directory, all that is listed below
// it, a directory before its entries and those sorted by name. Symlinks are
// shown and not followed, but for path itself. What vanishes meanwhile is
// passed over.
func Descend(ctx context.Context, root vnode.Node, path string, visit Visit) error {
	n, err := Walk(ctx, root, path, true)
	if err != nil {
		return err
	}
	e, err := entryOf(ctx, path, n)
	if err != nil {
		return err
	}
	return descend(ctx, path, e, 0, true, visit)
}

func descend(ctx context.Context, path string, e Entry, depth int, last bool, visit Visit) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := visit(path, e, depth, last)
	d, ok := e.Node.(vnode.Directory)
	isDir := ok && e.Attr.Mode&syscall.S_IFMT == syscall.S_IFDIR
	if errors.Is(err, fs.SkipDir) {
		return nil
	}
	if err != nil || !isDir {
		return err
	}
	entries, err := listDir(ctx, d)
	if err != nil {
		return err
	}
	if f, ok := d.(vnode.Forgetter); ok {
		defer f.Forget()
	}
	for i, child := range entries {
		below := strings.TrimSuffix(path, "/") + "/" + child.Name
		if err := descend(ctx, below, child, depth+1, i == len(entries)-1, visit); err != nil {
			return err
		}
	}
	return nil
}

// listDir returns the entries of a directory, sorted by name.
func listDir(ctx context.Context, d vnode.Directory) ([]Entry, error) {
	des, err := d.ReadDir(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Entry, 0, len(des))
	for _, de := range des {
		child, err := d.Lookup(ctx, de.Name)
		if errno.Of(err) == syscall.ENOENT || err == nil && child.Node == nil {
			continue // it went away meanwhile
		}
		if err != nil {
			return nil, err
		}
		e, err := entryOf(ctx, de.Name, child.Node)
		if errno.Of(err) == syscall.ENOENT {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	sortEntries(list)
	return list, nil
}
