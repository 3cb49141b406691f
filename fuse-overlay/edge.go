package fuseoverlay

import (
	"syscall"

	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/safefs"
)

// edge is where IDs and numbers of the layers become those that the mount
// shows, and back. Nothing behind it knows of the difference.
type edge struct {
	uids, gids           []idmap.Range // ContainerID: in the layers, HostID: shown
	squashUID, squashGID *uint32
	staticNlink, ino32   bool
	plain                bool // nothing is shown otherwise than it is
}

// overflowID is shown for an ID that the map does not have.
const overflowID = idmap.Overflow

func newEdge(c *MountConfig) edge {
	return edge{
		uids: c.UIDs, gids: c.GIDs, squashUID: c.SquashUID, squashGID: c.SquashGID, staticNlink: c.StaticNlink, ino32: c.Ino32,
		plain: len(c.UIDs)+len(c.GIDs) == 0 && c.SquashUID == nil && c.SquashGID == nil && !c.StaticNlink && !c.Ino32,
	}
}

// show turns a file's attributes into those that are shown.
func (e *edge) show(st *safefs.Stat) {
	if e.plain {
		return
	}
	st.UID, st.GID = showID(e.uids, st.UID), showID(e.gids, st.GID)
	if e.squashUID != nil {
		st.UID = *e.squashUID
	}
	if e.squashGID != nil {
		st.GID = *e.squashGID
	}
	if e.staticNlink && st.Type() == syscall.S_IFDIR {
		st.Nlink = 1
	}
	st.Ino = e.ino(st.Ino)
}

// ino turns an inode number into the one that is shown.
func (e *edge) ino(n uint64) uint64 {
	if !e.ino32 || n == 0 {
		return n
	}
	if n = (n ^ n>>32) & 0xffffffff; n == 0 {
		return 1
	}
	return n
}

// showID maps an ID of the layers to the mount's.
func showID(ranges []idmap.Range, id uint32) uint32 {
	if out, ok := idmap.Translate(ranges, int(id)); ok {
		return uint32(out)
	}
	return overflowID
}

// keepID is the inverse; EOVERFLOW for an ID that the map does not have, as on
// the kernel's ID-mapped mounts.
func keepID(ranges []idmap.Range, id uint32) (uint32, error) {
	if out, ok := idmap.Inverse(ranges, int(id)); ok {
		return uint32(out), nil
	}
	return 0, syscall.EOVERFLOW
}

// keep maps the owner of what a caller makes to the layers'. A caller that the
// map does not have makes files of overflowID: podman, as the machine's root,
// prepares the roots of containers that have other IDs.
func (e *edge) keep(uid, gid uint32) (uint32, uint32) {
	u, err := keepID(e.uids, uid)
	if err != nil {
		u = overflowID
	}
	g, err := keepID(e.gids, gid)
	if err != nil {
		g = overflowID
	}
	return u, g
}

// keepChange maps the owner that setattr is to set; EOVERFLOW when it cannot be
// kept.
func (e *edge) keepChange(c *change) (err error) {
	if e.plain {
		return nil
	}
	for _, p := range []struct {
		id     *uint32
		ranges []idmap.Range
	}{{c.uid, e.uids}, {c.gid, e.gids}} {
		if p.id != nil {
			if *p.id, err = keepID(p.ranges, *p.id); err != nil {
				return err
			}
		}
	}
	return nil
}

// acl returns an ACL's value with its IDs mapped, v itself when there is
// nothing to do. show: from the layers to the mount.
func (e *edge) acl(name string, v []byte, show bool) ([]byte, error) {
	if len(e.uids)+len(e.gids) == 0 || !idmap.IsACL(name) {
		return v, nil
	}
	to := func(ranges []idmap.Range) func(uint32) (uint32, error) {
		return func(id uint32) (uint32, error) {
			if show {
				return showID(ranges, id), nil
			}
			kept, err := keepID(ranges, id)
			if err != nil {
				return 0, syscall.EINVAL // as there
			}
			return kept, nil
		}
	}
	return idmap.MapACL(v, to(e.uids), to(e.gids))
}
