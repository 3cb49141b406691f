package fuseoverlay

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/plyfs/plyfs/internal/safefs"
)

// ID-mapped lower layers: podman, as the machine's root, gives a container with
// IDs of its own lower layers on ID-mapped mounts (mount_setattr(2)), which show
// owners as the container's already, and besides uidmapping= and gidmapping=
// with the same map, for the upper. What such a mount shows is taken back to
// what is on the disk, so that the map is applied once, and copies in the upper
// have the owners that files made there have.

// mappedMounts is the set of ID-mapped mounts that lower layers are on, by their IDs;
// nil where nothing is mapped or no layer is on one.
type mappedMounts map[uint64]bool

// findMapped learns which lower layers are on ID-mapped mounts.
func (o *Overlay) findMapped() error {
	if len(o.c.UIDs)+len(o.c.GIDs) == 0 {
		return nil
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("look for ID-mapped mounts: %w", err)
	}
	all := mappedIn(string(mounts))
	if len(all) == 0 {
		return nil
	}
	for _, l := range o.tree.layers {
		if o.work != nil && l.index == 0 {
			continue
		}
		if err := l.root.with(func(d *safefs.Dir) error {
			st, err := d.Stat(".")
			if err != nil || !all[l.given] {
				return err
			}
			if o.mapped == nil {
				o.mapped = mappedMounts{}
			}
			o.mapped[st.Mnt] = true
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// mappedIn returns the IDs of the mounts in a text like /proc/self/mountinfo
// (proc(5)) whose options say that they map IDs (show_mnt_opts of Linux 5.12).
func mappedIn(mountinfo string) mappedMounts {
	out := mappedMounts{}
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) < 6 || !strings.Contains(","+f[5]+",", ",idmapped,") {
			continue
		}
		if id, err := strconv.ParseUint(f[0], 10, 64); err == nil {
			out[id] = true
		}
	}
	return out
}

// unmap takes a file's owner back to what is on the disk.
func (o *Overlay) unmap(st *safefs.Stat) {
	if !o.mapped[st.Mnt] {
		return
	}
	e := edge{uids: o.c.UIDs, gids: o.c.GIDs}
	st.UID, st.GID = e.keep(st.UID, st.GID)
}

// unmapACL is unmap for the value of an ACL of a file whose attributes a gives. An
// ACL of an ID that the map does not have stays as it is.
func (o *Overlay) unmapACL(a access, name string, v []byte) ([]byte, error) {
	if o.mapped == nil || name != accessACL && name != defaultACL {
		return v, nil
	}
	st, err := a.stat()
	if err != nil || !o.mapped[st.Mnt] {
		return v, err
	}
	e := edge{uids: o.c.UIDs, gids: o.c.GIDs}
	if own, err := e.acl(name, v, false); err == nil {
		return own, nil
	}
	return v, nil
}
