//go:build linux

package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// quiet knows, by one system call, that nothing was written in the store's
// directories. The kernel queues a notification before the call that writes
// returns; so while the queue is empty what was loaded still holds, and tokens
// and stamps need not be compared. Filesystems on which others can write
// unseen (network, FUSE) are not trusted so: there it never says yes.
//
// The queue is emptied with the gate held, before tokens and stamps are
// compared: what is written after that fills it again.
type quiet struct {
	fd      int // -1 when not in use
	trusted atomic.Bool
}

const quietMask = unix.IN_MODIFY | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_CREATE | unix.IN_DELETE |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// localFilesystems see every writer of their files in this kernel.
func localFilesystem(magic int64) bool {
	switch magic {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC,
		unix.F2FS_SUPER_MAGIC, unix.OVERLAYFS_SUPER_MAGIC, 0x2fc12fc1 /* zfs */ :
		return true
	}
	return false
}

// neverQuiet watches nothing.
func neverQuiet() *quiet { return &quiet{fd: -1} }

// newQuiet watches dirs. Where that cannot be, the answer is one that is never
// quiet.
func newQuiet(dirs []string) *quiet {
	q := neverQuiet()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return q
	}
	q.fd = fd
	for _, d := range dirs {
		var fs unix.Statfs_t
		if err := unix.Statfs(d, &fs); err != nil || !localFilesystem(fs.Type) {
			return q
		}
		if _, err := unix.InotifyAddWatch(fd, d, quietMask); err != nil {
			return q
		}
	}
	q.trusted.Store(true)
	return q
}

// works tells whether it may ever say yes.
func (q *quiet) works() bool { return q.trusted.Load() }

// holds tells whether nothing was written since the queue was emptied.
func (q *quiet) holds() bool {
	if !q.works() {
		return false
	}
	queued, err := unix.IoctlGetInt(q.fd, unix.TIOCINQ)
	return err == nil && queued == 0
}

// empty empties the queue. A directory that went away ends the trust.
// Precondition: gate is held.
func (q *quiet) empty() {
	if !q.works() {
		return
	}
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(q.fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return
		case err != nil, n <= 0, lostWatch(buf[:max(n, 0)]):
			q.trusted.Store(false)
			return
		}
	}
}

// lostWatch looks for notifications that a watched directory is no longer
// what its path names. The layout is that of struct inotify_event: wd, mask,
// cookie, len (u32 each, native order), then len bytes of name.
func lostWatch(b []byte) bool {
	const head = unix.SizeofInotifyEvent
	for len(b) >= head {
		mask := binary.NativeEndian.Uint32(b[4:])
		if mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_IGNORED|unix.IN_UNMOUNT) != 0 {
			return true
		}
		next := head + int(binary.NativeEndian.Uint32(b[12:]))
		if next > len(b) {
			return true
		}
		b = b[next:]
	}
	return len(b) > 0
}

func (q *quiet) close() error {
	if q == nil || q.fd < 0 {
		return nil
	}
	q.trusted.Store(false)
	if err := unix.Close(q.fd); err != nil {
		return fmt.Errorf("close notifications: %w", err)
	}
	return nil
}
