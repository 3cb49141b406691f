package fuseoverlay

import (
	"context"

	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/vnode"
)

var (
	_ vnode.OwnerShower = (*dirNode)(nil)
	_ vnode.OwnerShower = (*fileNode)(nil)
	_ vnode.OwnerShower = (*linkNode)(nil)
	_ vnode.OwnerShower = (*specialNode)(nil)
)

// ShowOwner implements vnode.OwnerShower by the maps of the layer that the file
// is in (Layer.Owners). Where files could not be given away (Config.Recorded)
// their owners are in an attribute, of files that can have one. It is read
// here, and not where attributes are, since it is shown but gives no rights.
func (b *base) ShowOwner(_ context.Context, uid, gid uint32) (uint32, uint32, bool) {
	s := b.at().spot
	if b.tree.recorded && s.place.layer.Owners != nil {
		// What cannot be read shows the owner that it has.
		if o, ok, err := s.override(); ok && err == nil {
			return o.uid, o.gid, true
		}
	}
	return b.ShowIDs(uid, gid)
}

// ShowIDs implements vnode.OwnerShower.
func (b *base) ShowIDs(uid, gid uint32) (uint32, uint32, bool) {
	m := b.at().spot.place.layer.Owners
	if m == nil {
		return uid, gid, false
	}
	return idmap.Shown(m.UIDs, uid), idmap.Shown(m.GIDs, gid), true
}
