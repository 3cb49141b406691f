package fsview

import (
	"context"
	"fmt"
	"strconv"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

// quotaRows are the rows of what bounds a container's layer.
func quotaRows(dir string) []Row {
	const none = vnode.ValidNone
	bound := func(name, doc string, field func(*drivers.Limits) *int64, parse func([]byte) (int64, error)) Row {
		return Row{Path: dir + "/quota/" + name, Kind: Text, Mode: modeWrite, Valid: none, Doc: doc, rowOps: rowOps{
			get: func(p place) ([]byte, error) {
				l, _, err := p.fs.store.Limits(context.Background(), p.id)
				return showLimit(*field(&l)), err
			},
			size: sizeOrNone,
			put: func(ctx context.Context, p place, v []byte) error {
				n, err := parse(v)
				if err != nil {
					return err
				}
				l, _, err := p.fs.store.Limits(ctx, p.id)
				if err != nil {
					return err
				}
				*field(&l) = n
				return p.fs.store.SetLimits(ctx, p.id, l)
			}}}
	}
	return []Row{
		{Path: dir + "/quota", Kind: Dir, Mode: modeDir, Valid: vnode.ValidStore, Doc: "What bounds the container's layer, where the driver can (overlay on xfs with project quotas, or with our mount program); going over it is EDQUOT or ENOSPC."},
		bound("size", "Bytes on disk that its files may take, or empty for no bound; written in bytes, or as 512m or 10g.",
			func(l *drivers.Limits) *int64 { return &l.Bytes }, parseLimit),
		bound("inodes", "How many files and directories it may have, or empty.",
			func(l *drivers.Limits) *int64 { return &l.Inodes }, parseCount),
		{Path: dir + "/quota/used", Kind: Text, Mode: modeRead, Valid: none, Doc: "What counts against the bounds: `bytes` and `inodes`; empty without a bound.",
			rowOps: rowOps{size: sizeOrNone, get: func(p place) ([]byte, error) {
				l, used, err := p.fs.store.Limits(context.Background(), p.id)
				if err != nil || l == (drivers.Limits{}) {
					return nil, err
				}
				return fmt.Appendf(nil, "%-14s %*d\n%-14s %*d\n", "bytes", usageWidth, used.Bytes, "inodes", usageWidth, used.Inodes), nil
			}}},
	}
}

// sizeOrNone is the size of what get returns. A layer of which something is
// missing can be listed all the same; reading says what is wrong.
func sizeOrNone(_ context.Context, p place) (int64, bool) {
	v, err := p.row.get(p)
	return int64(len(v)), err == nil
}

func showLimit(n int64) []byte {
	if n == 0 {
		return nil
	}
	return line(strconv.FormatInt(n, 10))
}

// parseLimit reads a size: nothing for no bound, else bytes, with or without a
// unit.
func parseLimit(v []byte) (int64, error) {
	s, err := parseValue(v)
	if err != nil || s == "" {
		return 0, err
	}
	return drivers.ParseSize(s)
}

// parseCount reads a number from 0 on, or nothing for 0.
func parseCount(v []byte) (int64, error) {
	s, err := parseValue(v)
	if err != nil || s == "" {
		return 0, err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, errno.New(errno.ErrBadValue, "%q is no number: write how many, or nothing for no bound", clip(s))
	}
	return n, nil
}
