package fusefs

import (
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Listings of a vnode.Lister are kept by the kernel (FOPEN_CACHE_DIR), which
// asks at each opendir whether its copy is still good (FOPEN_KEEP_CACHE), and
// drops it otherwise. An answer to READDIR is put into the copy by the program
// that asked, some time after it was sent, and surely before that program's
// next request on the handle. So what a handle was told under an earlier epoch
// may come into the copy until the handle is released. The copy is good when
// somebody had it dropped and read the list anew, both under the present
// epoch, and no such handle was open in between or since.

// openList enters a handle and returns the flags for its opendir. holds is what
// the directory says of its listing.
func (t *table) openList(in *inode, d *dirHandle, epoch uint64, holds bool) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	sound := in.soundLocked(epoch)
	in.dirs = append(in.dirs, d)
	d.spoilt = in.spoilt
	switch {
	case !holds || !sound:
		in.listed = 0
		return 0
	case in.listed == epoch+1:
		return fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
	}
	in.listed, d.opened = 0, epoch+1
	return fuse.FOPEN_CACHE_DIR
}

// soundLocked tells whether every open handle that was read from was so under
// the present epoch.
func (in *inode) soundLocked(epoch uint64) bool {
	for _, o := range in.dirs {
		if o.began != 0 && o.began != epoch+1 {
			return false
		}
	}
	return true
}

// readList notes that d's entries are being read, under an epoch that was looked
// at before.
func (t *table) readList(in *inode, d *dirHandle, epoch uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d.began != 0 && d.began != epoch+1 {
		in.spoilt++ // what it was told before may be in the copy
	}
	d.began = epoch + 1
	if d.opened == d.began && d.spoilt == in.spoilt && in.soundLocked(epoch) {
		in.listed = d.began
	} else if in.listed != d.began {
		in.listed = 0
	}
}

// closeList is the end of a handle.
func (t *table) closeList(in *inode, d *dirHandle, epoch uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(in.dirs, d); i >= 0 {
		in.dirs = slices.Delete(in.dirs, i, i+1)
	}
	if d.began != 0 && d.began != epoch+1 {
		in.listed = 0
		in.spoilt++
	}
}
