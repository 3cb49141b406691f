package hosttree

import (
	"context"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/vnode"
)

// ShowOwner returns the owner that the container sees.
func (n *node) ShowOwner(_ context.Context, uid, gid uint32) (uint32, uint32, bool) {
	return n.ShowIDs(uid, gid)
}

// ShowIDs returns the IDs that the container sees.
func (n *node) ShowIDs(uid, gid uint32) (uint32, uint32, bool) {
	m := n.w.opts.Shown
	if m == nil {
		return uid, gid, false
	}
	return idmap.Shown(m.UIDs, uid), idmap.Shown(m.GIDs, gid), true
}

// TakeOwner returns the backing's IDs of those that the container has.
func (n *node) TakeOwner(uid, gid *uint32) (u, g *uint32, ok bool, err error) {
	m := n.w.opts.Shown
	if m == nil {
		return uid, gid, false, nil
	}
	u, err = taken(m.UIDs, uid, "user")
	if err != nil {
		return uid, gid, true, err
	}
	g, err = taken(m.GIDs, gid, "group")
	return u, g, true, err
}

func taken(ranges []idmap.Range, shown *uint32, kind string) (*uint32, error) {
	if shown == nil {
		return nil, nil
	}
	id, ok := idmap.Translate(ranges, int(*shown))
	if !ok {
		return shown, errno.New(errno.ErrBadValue, "the container has no %s %d: owners are shown, and given, as the container numbers them", kind, *shown)
	}
	real := uint32(id)
	return &real, nil
}

// maker returns the owner of what the caller makes. Only what this process's
// own user makes may come to belong to somebody else.
func (w *Window) maker(ctx context.Context) (vnode.Caller, bool) {
	c, ok := vnode.CallerOf(ctx)
	if uid, _ := effective(); w.opts.Shown != nil && c.UID == uid {
		m := w.opts.Shown
		c.UID, c.GID = known(m.UIDs, c.UID), known(m.GIDs, c.GID)
	}
	return c, ok
}

// known returns id where the container has it, else the ID that the container
// has under that number, else id: making will be refused.
func known(ranges []idmap.Range, id uint32) uint32 {
	if _, ok := idmap.Inverse(ranges, int(id)); ok {
		return id
	}
	if real, ok := idmap.Translate(ranges, int(id)); ok {
		return uint32(real)
	}
	return id
}
