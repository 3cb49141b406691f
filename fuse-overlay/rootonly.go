package fuseoverlay

import (
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// rootOnly lets in root and the user that mounts (allow_root). The kernel knows
// only "the mounting user" and "all", so the mount is for all, and every
// request that comes with a name or asks for attributes is looked at; with
// names and attributes valid for no time, no path is walked without one. What
// is done through a descriptor was opened by somebody who may.
type rootOnly struct {
	fuse.RawFileSystem
	owner uint32
}

func newRootOnly(fs fuse.RawFileSystem) *rootOnly { return &rootOnly{fs, uint32(os.Geteuid())} }

func (r *rootOnly) keepOut(h *fuse.InHeader) bool { return h.Uid != 0 && h.Uid != r.owner }

// Lookup finds a name.
func (r *rootOnly) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if r.keepOut(h) {
		return fuse.EACCES
	}
	return r.RawFileSystem.Lookup(cancel, h, name, out)
}

// GetAttr is stat, and what the kernel asks before it walks on.
func (r *rootOnly) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if r.keepOut(&in.InHeader) {
		return fuse.EACCES
	}
	return r.RawFileSystem.GetAttr(cancel, in, out)
}

// Statx is stat too.
func (r *rootOnly) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	if r.keepOut(&in.InHeader) {
		return fuse.EACCES
	}
	return r.RawFileSystem.Statx(cancel, in, out)
}

// SetAttr changes attributes, of the root without a walk.
func (r *rootOnly) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if r.keepOut(&in.InHeader) {
		return fuse.EACCES
	}
	return r.RawFileSystem.SetAttr(cancel, in, out)
}

// GetXAttr reads an extended attribute.
func (r *rootOnly) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	if r.keepOut(h) {
		return 0, fuse.EACCES
	}
	return r.RawFileSystem.GetXAttr(cancel, h, attr, dest)
}

// ListXAttr lists them.
func (r *rootOnly) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if r.keepOut(h) {
		return 0, fuse.EACCES
	}
	return r.RawFileSystem.ListXAttr(cancel, h, dest)
}

// StatFs tells of the filesystem.
func (r *rootOnly) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	if r.keepOut(h) {
		return fuse.EACCES
	}
	return r.RawFileSystem.StatFs(cancel, h, out)
}
