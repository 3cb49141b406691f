package fuseoverlay

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// settle makes sure that no power loss leaves a name, or a mark, that is made
// after it without the data that the file open as fd has now.
//
// Where the filesystem's journal commits in order, it is enough that the data
// is written and its extents are in the journal's running transaction: what is
// changed later is committed with them or after them, and a commit flushes the
// disk first. So nothing waits for a commit (fsync would, once a file); a loss
// then shows the file of the layer below, whole, until the journal's next
// commit. Elsewhere the file is synced.
func (w *work) settle(fd int) error {
	if !w.ordered {
		return retryEINTR(func() error { return unix.Fsync(fd) })
	}
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	err := retryEINTR(func() error { return unix.SyncFileRange(fd, 0, 0, all) })
	if err != nil {
		return fmt.Errorf("write the data of a copy: %w", err)
	}
	return nil
}

// begin has n bytes of data at off written, 0 of them: all, without waiting for it:
// of several files that are settled one after the other, all are begun before, and
// a long one while it is copied.
func (w *work) begin(fd int, off, n int64) {
	_ = retryEINTR(func() error { return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE) }) // settle tells what fails
}

// settling tells whether what is written to the upper is settled at all: not where
// a power loss leaves nothing.
func (o *Overlay) settling() bool { return !o.c.Volatile && !o.work.fleeting }

// learn finds out what filesystem it is.
func (w *work) learn() {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(w.stage.Fd(), &fs); err != nil {
		return
	}
	st, err := w.stage.Stat(".")
	if err != nil {
		return
	}
	w.dev = st.Dev
	w.ext4 = fs.Type == unix.EXT4_SUPER_MAGIC
	w.fleeting = fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC
	w.ordered = w.ext4 && journaled(w.stage)
}

// journaled tells whether d, on ext4, is on one with a journal of its own disk: jbd2
// shows those as NAME-INODE in /proc/fs/jbd2, and external ones without inode
// (Documentation/filesystems/ext4: data=ordered and delayed allocation).
func journaled(d *safefs.Dir) bool {
	st, err := d.Stat(".")
	if err != nil {
		return false
	}
	dev, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return false
	}
	_, err = os.Stat("/proc/fs/jbd2/" + filepath.Base(dev) + "-8") // the journal's inode, EXT4_JOURNAL_INO
	return err == nil
}
