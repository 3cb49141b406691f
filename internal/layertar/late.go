package layertar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/spill"
	"github.com/plyfs/plyfs/internal/unix"
)

// lateDir is a directory whose default ACL, mode and times are set after
// everything else.
type lateDir struct {
	dir          string
	offset       int64 // of the member
	acl          []byte
	perm         uint32
	mtime, atime time.Time
}

// lateDirs is a stack of them, most of it on disk:
//
//	| offset | perm | mtime s, ns | atime s, ns | len(acl) | acl | dir | length of all before |
//
// in eight bytes each, big endian.
type lateDirs struct {
	s   spill.Spool
	buf []byte
}

const lateFixed = 7 * 8

func (l *lateDirs) push(d lateDir) error {
	b := l.buf[:0]
	for _, n := range [...]int64{d.offset, int64(d.perm), d.mtime.Unix(), int64(d.mtime.Nanosecond()), d.atime.Unix(), int64(d.atime.Nanosecond()), int64(len(d.acl))} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	b = append(append(b, d.acl...), d.dir...)
	b = binary.BigEndian.AppendUint64(b, uint64(len(b)))
	l.buf = b
	return l.s.Append(b)
}

// drain calls fn with each, the last one first.
func (l *lateDirs) drain(fn func(*lateDir) error) error {
	if err := l.s.Seal(); err != nil {
		return err
	}
	for end := l.s.Size(); end > 0; {
		var tail [8]byte
		if err := l.read(tail[:], end-8); err != nil {
			return err
		}
		n := int64(binary.BigEndian.Uint64(tail[:]))
		b := make([]byte, n)
		if end -= 8 + n; end < 0 {
			return io.ErrUnexpectedEOF
		}
		if err := l.read(b, end); err != nil {
			return err
		}
		num := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[8*i:])) }
		d := lateDir{offset: num(0), perm: uint32(num(1)), mtime: time.Unix(num(2), num(3)), atime: time.Unix(num(4), num(5))}
		acl := num(6)
		if acl > 0 {
			d.acl = b[lateFixed : lateFixed+acl]
		}
		d.dir = string(b[lateFixed+acl:])
		if err := fn(&d); err != nil {
			return err
		}
	}
	return nil
}

func (l *lateDirs) read(b []byte, off int64) error {
	n, err := l.s.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	return errors.Join(io.ErrUnexpectedEOF, err)
}

// finish sets the directories' modes and times: those deeper in the tree,
// which come later in a stream, first, so that a mode without search
// permission locks nobody out. One that is gone again is passed over.
func (a *applier) finish() error {
	a.forget()
	err := a.late.drain(func(l *lateDir) error {
		if err := a.finishDir(l); err != nil {
			return fmt.Errorf("finish directory %s: %w", clip(quote(l.dir)), err)
		}
		return nil
	})
	if err != nil || !a.o.SyncFiles {
		return err
	}
	if err = syncDirs(a.root.Dir); errors.Is(err, syscall.EACCES) {
		err = a.syncAll() // a directory that is closed to its owner
	}
	return err
}

// syncAll syncs the root's filesystem.
func (a *applier) syncAll() error {
	f, err := a.root.Open(".", os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

// syncDirs makes the entries of d and of all below durable, those deeper first.
func syncDirs(d *safefs.Dir) error {
	err := d.ReadDir(func(e safefs.Entry) error {
		if e.Type != 0 && e.Type != unix.S_IFDIR {
			return nil
		}
		sub, err := d.OpenDir(e.Name)
		if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
			return nil
		}
		if err != nil {
			return err
		}
		return errors.Join(syncDirs(sub), sub.Close())
	})
	return errors.Join(err, d.Sync())
}

func (a *applier) finishDir(l *lateDir) (err error) {
	d := a.root.Dir
	if l.dir != "" {
		if d, err = a.root.OpenDirAt(l.dir, safefs.NoSymlinks); err != nil {
			if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENOTDIR) {
				return nil // replaced or removed by a later member
			}
			return err
		}
		defer func() { err = errors.Join(err, d.Close()) }()
	}
	if l.acl != nil {
		h := &header{name: l.dir, offset: l.offset, xattrs: []xattr{{aclDefault, l.acl}}}
		if err := a.xattrs(h, false, func(n string, v []byte) error { return d.Setxattr(".", n, v, 0) }); err != nil {
			return err
		}
	}
	if l.perm&0o700 != 0o700 {
		if err := d.Chmod(".", l.perm); err != nil {
			return err
		}
	}
	return d.Utimens(".", l.atime, l.mtime)
}
