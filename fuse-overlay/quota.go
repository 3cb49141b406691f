package fuseoverlay

import (
	"context"
	"fmt"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
)

// quota bounds what the upper holds: bytes that its files have allocated
// (st_blocks), and files. It counts at the mount's start, and then by looking
// at each file after it was changed, so it is right whatever the filesystem
// does, and needs nothing of it. Whiteouts and the work directory are not
// counted. A file is counted until its last descriptor is closed. Nil is no
// bound.
//
// What a request will take is known for data only; for the rest (a directory's
// growth by a name, an attribute) it is enough that there is room at all.
// Requests that run at once may each find the last free bytes. So the bound is
// passed by at most one request's size, or a block of the filesystem, for each.
type quota struct {
	mostBytes, mostFiles int64 // 0: no bound
	work                 *work // knows whiteouts

	mu    sync.Mutex
	bytes int64
	files map[uint64]int64 // bytes by inode number in the upper
}

// newQuota counts what is there. Nil when nothing is bounded.
func newQuota(c *MountConfig, w *work, upper *place) (*quota, error) {
	if c.MaxBytes == 0 && c.MaxFiles == 0 {
		return nil, nil
	}
	q := &quota{work: w, mostBytes: c.MaxBytes, mostFiles: c.MaxFiles, files: map[uint64]int64{}}
	if err := q.count(upper); err != nil {
		return nil, fmt.Errorf("count what upperdir %s holds: %w", c.Upper, err)
	}
	return q, nil
}

// count takes the directory p and all below it in.
func (q *quota) count(p *place) error {
	return p.walk(func(d *safefs.Dir, below func(string, *safefs.Stat)) error {
		st, err := d.Stat(".")
		if err != nil {
			return err
		}
		q.set(&st)
		return d.ReadDir(func(e safefs.Entry) error {
			st, err := p.stat(d, e.Name)
			switch {
			case absent(err):
				return nil
			case err != nil:
				return err
			case p.covered(&st):
			case st.Type() == unix.S_IFDIR:
				below(e.Name, &st)
			case !q.work.isWhiteout(d, e.Name, &st):
				q.set(&st)
			}
			return nil
		})
	})
}

// set notes what a file of the upper holds now.
func (q *quota) set(st *safefs.Stat) {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := int64(st.Blocks) * 512
	q.bytes += now - q.files[st.Ino]
	q.files[st.Ino] = now
}

// drop notes that a file is gone.
func (q *quota) drop(ino uint64) {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= q.files[ino]
	delete(q.files, ino)
}

// room tells whether there is room for more: EDQUOT when not.
func (q *quota) room(bytes, files int64) error {
	if q == nil {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case files > 0 && q.mostFiles > 0 && int64(len(q.files))+files > q.mostFiles:
		return errno.New(errno.ErrQuota, "the upper has %d files and may have %d (inodes=): remove some, or mount with a larger bound", len(q.files), q.mostFiles)
	case bytes > 0 && q.mostBytes > 0 && q.bytes+bytes > q.mostBytes:
		return errno.New(errno.ErrQuota, "the upper holds %d bytes and may hold %d (size=): %d more have no room; remove some, or mount with a larger bound", q.bytes, q.mostBytes, bytes)
	}
	return nil
}

// anyRoom is what is asked for where a request takes a block of the filesystem,
// or none.
const anyRoom = 1

// blockRoom is what a new directory may take, and the text of a symlink that
// does not fit in its inode.
const blockRoom = 4096

// textRoom is what a symlink may take.
func textRoom(target string) int64 {
	if len(target) < 60 { // ext4's inodes hold less than that
		return 0
	}
	return blockRoom
}

// valueRoom is what an attribute may take.
func valueRoom(value []byte) int64 {
	if len(value) <= 256 {
		return anyRoom
	}
	return int64(len(value))
}

// settleDir notes what an upper directory, in which there is a further name,
// holds now.
func (q *quota) settleDir(d *safefs.Dir) { q.settleName(d, ".") }

// settleName notes what the file that has a name in the upper directory d holds now.
func (q *quota) settleName(d *safefs.Dir, name string) {
	if q == nil {
		return
	}
	if st, err := d.Stat(name); err == nil {
		q.set(&st)
	}
}

// roomAt is room for n bytes at off of an open file, of which some may be
// there already.
func (q *quota) roomAt(fd int, off, n int64) error {
	if q == nil || q.room(n, 0) == nil {
		return nil
	}
	st, err := safefs.StatFD(fd)
	if err != nil {
		return err
	}
	if off+n <= int64(st.Size) && int64(st.Blocks)*512 >= int64(st.Size) {
		return nil // nothing new
	}
	return q.room(n, 0)
}

// settle notes what an open file holds now.
func (q *quota) settle(fd int) {
	if q == nil {
		return
	}
	if st, err := safefs.StatFD(fd); err == nil && st.Nlink > 0 {
		q.set(&st)
	} else if err == nil && q.counted(st.Ino) {
		q.set(&st) // open, without a name
	}
}

func (q *quota) counted(ino uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, ok := q.files[ino]
	return ok
}

// settleNode notes what n holds in the upper.
func (o *Overlay) settleNode(n *node) {
	if o.quota == nil || !n.is(flagUp) {
		return
	}
	_ = o.with(n, func(a access) error {
		st, err := a.stat()
		if err == nil {
			o.quota.set(&st)
		}
		return err
	})
}

// copyRoom tells whether there is room for a copy-up.
func (o *Overlay) copyRoom(_ context.Context, p *copyPlan) error {
	if o.quota == nil {
		return nil
	}
	bytes := textRoom(p.target)
	switch {
	case p.st.IsDir():
		bytes = blockRoom
	case p.st.Type() == unix.S_IFREG && !p.meta:
		bytes = dataRoom(&p.st, p.size)
	}
	return o.quota.room(bytes+anyRoom, 1)
}

// dataRoom is what the first size bytes of a file may take.
func dataRoom(st *safefs.Stat, size int64) int64 {
	return min(int64(st.Blocks)*512, size+blockRoom)
}

// completeRoom tells whether there is room for the data of a copy of metadata
// only.
func (o *Overlay) completeRoom(n *node, size int64) error {
	if o.quota == nil {
		return nil
	}
	return n.lowerData().with(func(a access) error {
		st, err := a.stat()
		if err != nil {
			return err
		}
		return o.quota.room(dataRoom(&st, size), 0)
	})
}

// statfs shows the bounds as the filesystem's size.
func (q *quota) statfs(st *syscall.Statfs_t) {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if unit := st.Frsize; q.mostBytes > 0 && unit > 0 {
		free := uint64(max(q.mostBytes-q.bytes, 0) / unit)
		st.Blocks = uint64(q.mostBytes / unit)
		st.Bfree, st.Bavail = min(st.Bfree, free), min(st.Bavail, free)
	}
	if q.mostFiles > 0 {
		st.Files = uint64(q.mostFiles)
		st.Ffree = min(st.Ffree, uint64(max(q.mostFiles-int64(len(q.files)), 0)))
	}
}
