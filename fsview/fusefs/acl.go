package fusefs

import (
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/vnode"
)

// The kernel hands ACLs on as attributes whose IDs are those of the mounter's
// user namespace: they are translated as owners are.

// showACL translates an attribute that was read of n.
func (s *Server) showACL(n vnode.Node, name string, v []byte) ([]byte, error) {
	o, _ := n.(vnode.OwnerShower)
	if !idmap.IsACL(name) || o == nil && s.opts.Out == nil {
		return v, nil
	}
	both := func(id uint32) (uint32, uint32) {
		if o != nil {
			if u, g, ok := o.ShowIDs(id, id); ok {
				return u, g
			}
		}
		if s.opts.Out != nil {
			return s.opts.Out(id, id)
		}
		return id, id
	}
	return idmap.MapACL(v,
		func(id uint32) (uint32, error) { u, _ := both(id); return u, nil },
		func(id uint32) (uint32, error) { _, g := both(id); return g, nil })
}

// takeACL translates an attribute that n is to have.
func (s *Server) takeACL(n vnode.Node, name string, v []byte) ([]byte, error) {
	if !idmap.IsACL(name) {
		return v, nil
	}
	return idmap.MapACL(v,
		func(id uint32) (uint32, error) {
			set := vnode.SetAttr{UID: &id}
			err := s.realOwner(&set, n)
			return *set.UID, err
		},
		func(id uint32) (uint32, error) {
			set := vnode.SetAttr{GID: &id}
			err := s.realOwner(&set, n)
			return *set.GID, err
		})
}
