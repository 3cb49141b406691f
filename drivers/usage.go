package drivers

import (
	"context"

	"github.com/plyfs/plyfs/internal/errno"
)

// Usage is what files take on disk: Bytes are those of allocated blocks, and
// Inodes are counted once, however many names they have, directories with them.
type Usage struct{ Bytes, Inodes int64 }

// Plus returns the sum.
func (u Usage) Plus(v Usage) Usage { return Usage{u.Bytes + v.Bytes, u.Inodes + v.Inodes} }

// Usager is a driver that knows what a layer takes without looking at every
// file.
type Usager interface {
	// Usage returns what layer id takes by itself.
	Usage(ctx context.Context, id string) (Usage, error)
}

// UsageOf returns what layer id takes by itself, without those below it (with a
// driver of whole copies: all of it).
func UsageOf(ctx context.Context, d Driver, id string) (Usage, error) {
	if u, ok := d.(Usager); ok {
		return u.Usage(ctx, id)
	}
	dirs, err := d.Dirs(id)
	if err != nil {
		return Usage{}, err
	}
	if len(dirs) == 0 {
		return Usage{}, errno.New(errno.ErrDamaged, "layer %s has no directory", id)
	}
	return UsageBelow(ctx, dirs[0])
}
