package fuseoverlay

import (
	"context"
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// change is a set of changes of attributes; what is nil is left alone.
type change struct {
	mode, uid, gid *uint32
	size           *uint64
	// atime, mtime: the zero Time leaves it alone.
	atime, mtime time.Time
	// killPriv: the caller may not keep set-ID bits on a truncation.
	killPriv bool
	// killWrite: set-ID bits are to go, as with a write.
	killWrite bool
}

// setattr changes n and returns its attributes.
func (o *Overlay) setattr(ctx context.Context, n *node, c change) (st safefs.Stat, err error) {
	if err := o.mayWrite(); err != nil {
		return st, err
	}
	if c.killWrite {
		st, err = o.stat(n)
		keep := withoutPrivileges(st.Mode & 0o7777)
		if err != nil || keep == st.Mode&0o7777 {
			return st, err
		}
		c.mode = &keep
	}
	if err := o.upAndCut(ctx, n, c); err != nil {
		return st, err
	}
	if c.more() {
		err = o.reach(n, func(a access) (err error) {
			c, err := o.setAside(n, a, c)
			if err != nil {
				return err
			}
			if err := o.apply(c, a); err != nil && !o.asideOnly(err) {
				return err
			}
			n.loud()
			st, err = o.tree.loans.seen(a.stat)
			return err
		})
		if err != nil {
			return st, err
		}
		return st, o.shown(n, &st)
	}
	return o.stat(n)
}

// upAndCut copies n up as a change needs it, and makes its size what it is to be.
func (o *Overlay) upAndCut(ctx context.Context, n *node, c change) error {
	switch {
	case c.size == nil:
		return o.metaUp(ctx, n)
	case n.isDir():
		return syscall.EISDIR
	}
	cut, err := o.cutUp(ctx, n, int64(min(*c.size, 1<<62)))
	if err != nil || cut {
		return err
	}
	return o.truncate(n, int64(*c.size), c.killPriv)
}

// more tells whether there is anything to change but the size.
func (c change) more() bool {
	return c.mode != nil || c.uid != nil || c.gid != nil || !c.atime.IsZero() || !c.mtime.IsZero()
}

// apply changes all but the size: the owner first, since that clears bits of
// the mode; times last.
func (o *Overlay) apply(c change, a access) error {
	if c.uid != nil || c.gid != nil {
		uid, gid := -1, -1
		if c.uid != nil {
			uid = int(*c.uid)
		}
		if c.gid != nil {
			gid = int(*c.gid)
		}
		if _, err := o.giveTo(uid, gid, a.chown); err != nil {
			return err
		}
	}
	if c.mode != nil {
		if err := o.tree.loans.chmod(a, *c.mode&0o7777); err != nil {
			return err
		}
	}
	if c.atime.IsZero() && c.mtime.IsZero() {
		return nil
	}
	return a.utimens(c.atime, c.mtime)
}

func (o *Overlay) truncate(n *node, size int64, killPriv bool) error {
	b, err := o.open(n, true)
	if err != nil {
		return err
	}
	defer o.fds.leave(b)
	if err := retryEINTR(func() error { return unix.Ftruncate(b.fd, size) }); err != nil {
		return err
	}
	o.quota.settle(b.fd)
	if killPriv {
		_, err := o.dropPrivileges(n, b.fd)
		return err
	}
	return nil
}

func retryEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// withoutPrivileges is mode without what a write by someone without privilege
// clears: set-user-ID, set-group-ID where the group may execute.
func withoutPrivileges(mode uint32) uint32 {
	keep := mode &^ unix.S_ISUID
	if mode&0o010 != 0 {
		keep &^= unix.S_ISGID
	}
	return keep
}

// dropPrivileges clears these of an upper file. The capability goes with the
// write itself. It tells whether there was anything.
func (o *Overlay) dropPrivileges(n *node, fd int) (bool, error) {
	st, err := safefs.StatFD(fd)
	if err != nil {
		return false, err
	}
	v := n.aside()
	if v != nil {
		v.show(&st)
	}
	mode := st.Mode & 0o7777
	keep := withoutPrivileges(mode)
	switch {
	case keep == mode:
		return false, nil
	case v == nil:
		return true, unix.Fchmod(fd, keep)
	}
	return true, o.with(n, func(a access) error {
		_, err := o.setAside(n, a, change{mode: &keep})
		return err
	})
}

// sector is what reads that are cut short, by a signal say, are whole multiples of.
const sector = 512

// read reads at off.
func (o *Overlay) read(n *node, p []byte, off int64) (int, error) {
	b, err := o.open(n, false)
	if err != nil {
		return 0, err
	}
	defer o.fds.leave(b)
	total := 0
	for total < len(p) {
		k, err := unix.Pread(b.fd, p[total:], off+int64(total))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return total, err
		}
		// A read that stops within a sector has come to the end.
		if total += k; k == 0 || (off+int64(total))%sector != 0 {
			break
		}
	}
	return total, nil
}

// write writes at off.
func (o *Overlay) write(ctx context.Context, n *node, p []byte, off int64, killPriv bool) (int, error) {
	return o.writeBy(ctx, n, len(p), off, killPriv, func(fd int, off int64, most int) (k int, err error) {
		k, err = unix.Pwrite(fd, p[:most], off)
		p = p[max(k, 0):]
		return k, err
	})
}

// pieceExt4 is what is written to a file on ext4 at once, at most. The kernel keeps it
// in memory in folios as long as what was written at once, and each later write into one
// goes through the states of all its blocks: a small one at a random place took 15 µs
// in a folio of 512 KiB and 7 in one of 64 (Linux 6.18). Large ones take a quarter more
// of the processor, where a disk is the slower.
const pieceExt4 = 1 << 16

// piece returns how much of size bytes at off is written at once.
func (w *work) piece(off int64, size int) int {
	if w.ext4 {
		return min(size, pieceExt4-int(off%pieceExt4))
	}
	return size
}

// writeBy writes size bytes, of which put puts up to most at a time, maybe fewer, at a
// place in a file.
func (o *Overlay) writeBy(ctx context.Context, n *node, size int, off int64, killPriv bool, put func(fd int, off int64, most int) (int, error)) (int, error) {
	b, err := o.openWrite(ctx, n)
	if err != nil {
		return 0, err
	}
	defer o.fds.leave(b)
	if err := o.quota.roomAt(b.fd, off, int64(size)); err != nil {
		return 0, err
	}
	defer o.quota.settle(b.fd)
	total := 0
	for total < size {
		at := off + int64(total)
		k, err := put(b.fd, at, o.work.piece(at, size-total))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil && total == 0 {
			return 0, err
		}
		if err != nil || k == 0 {
			break // a short write; the next one tells why
		}
		total += k
	}
	if !killPriv {
		return total, nil
	}
	changed, err := o.dropPrivileges(n, b.fd)
	if changed && o.modeChanged != nil {
		o.modeChanged(n)
	}
	return total, err
}

// openWrite is open for writing, with what must come before it.
func (o *Overlay) openWrite(ctx context.Context, n *node) (*backing, error) {
	if err := o.mayWrite(); err != nil {
		return nil, err
	}
	if n.isDir() {
		return nil, syscall.EISDIR
	}
	if err := o.copyUp(ctx, n, allData); err != nil {
		return nil, err
	}
	return o.open(n, true)
}

// fallocate is fallocate(2).
func (o *Overlay) fallocate(ctx context.Context, n *node, mode uint32, off, size int64) error {
	b, err := o.openWrite(ctx, n)
	if err != nil {
		return err
	}
	defer o.fds.leave(b)
	if mode&unix.FALLOC_FL_PUNCH_HOLE == 0 {
		if err := o.quota.roomAt(b.fd, off, size); err != nil {
			return err
		}
	}
	defer o.quota.settle(b.fd)
	return retryEINTR(func() error { return unix.Fallocate(b.fd, mode, off, size) })
}

// seek answers SEEK_DATA and SEEK_HOLE.
func (o *Overlay) seek(n *node, off int64, whence int) (int64, error) {
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, syscall.EINVAL
	}
	b, err := o.open(n, false)
	if err != nil {
		return 0, err
	}
	defer o.fds.leave(b)
	return unix.Seek(b.fd, off, whence)
}

// copyRange is copy_file_range(2) between files of the overlay.
func (o *Overlay) copyRange(ctx context.Context, from *node, at int64, to *node, toAt int64, size int) (int, error) {
	out, err := o.openWrite(ctx, to)
	if err != nil {
		return 0, err
	}
	defer o.fds.leave(out)
	in, err := o.open(from, false)
	if err != nil {
		return 0, err
	}
	defer o.fds.leave(in)
	if err := o.quota.roomAt(out.fd, toAt, int64(size)); err != nil {
		return 0, err
	}
	defer o.quota.settle(out.fd)
	return unix.CopyFileRange(in.fd, &at, out.fd, &toAt, size, 0)
}

// fsync makes n durable, unless nothing is to be.
func (o *Overlay) fsync(n *node, dataOnly bool) error {
	if o.c.Volatile || !n.is(flagUp) {
		return nil
	}
	if n.isDir() {
		if n.orphan() != nil {
			return nil
		}
		return n.upper().with(func(d *safefs.Dir) error { return d.Sync() })
	}
	if n.typ != unix.S_IFREG {
		return nil
	}
	if err := o.fds.takeLost(n); err != nil {
		return err
	}
	if n.lacksData() {
		fd := -1
		if err := o.withUpper(n, func(a access) (err error) {
			fd, err = openAccess(a, unix.O_RDONLY)
			return err
		}); err != nil {
			return err
		}
		defer closeFDs([]int{fd})
		return retryEINTR(func() error { return unix.Fsync(fd) }) // a disk's time: without locks
	}
	b, err := o.open(n, false)
	if err != nil {
		return err
	}
	defer o.fds.leave(b)
	if dataOnly {
		return retryEINTR(func() error { return unix.Fdatasync(b.fd) })
	}
	return retryEINTR(func() error { return unix.Fsync(b.fd) })
}

// readlink returns a symlink's text.
func (o *Overlay) readlink(n *node) (target string, err error) {
	err = o.with(n, func(a access) (err error) {
		target, err = a.readlink()
		return err
	})
	return target, err
}
