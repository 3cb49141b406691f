//go:build linux

package projquota

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
)

// Bounds are the limits of a project; 0 is none.
type Bounds struct{ Bytes, Inodes int64 }

// Usage is what the files of a project take.
type Usage struct{ Bytes, Inodes int64 }

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	xflags, extsize, nextents, projid, cowextsize uint32
	_                                             [8]byte
}

const (
	// _IOR('X', 31, struct fsxattr) and _IOW('X', 32, struct fsxattr)
	fsGetXattr   = 0x801c581f
	fsSetXattr   = 0x401c5820
	projInherit  = 0x200 // FS_XFLAG_PROJINHERIT
	projectQuota = 2     // PRJQUOTA of linux/quota.h
)

// Commands of linux/quota.h and linux/dqblk_xfs.h, and what goes with them.
const (
	cmdGet    = 0x800007          // Q_GETQUOTA
	cmdSet    = 0x800008          // Q_SETQUOTA
	cmdState  = 'X'<<8 + 5        // Q_XGETQSTAT
	enforced  = 1 << 5            // FS_QUOTA_PDQ_ENFD
	blockSize = 1024              // QIF_DQBLKSIZE, of the limits
	validSet  = 1<<0 | 1<<2       // QIF_BLIMITS | QIF_ILIMITS
	mostBytes = int64(1)<<62 - 1  // further ones are no limit that a disk has
	firstID   = uint32(1) << 20   // projects of ours: above those that people
	lastID    = uint32(1)<<30 - 1 // and other programs count up from 1
)

// dqblk is struct if_dqblk.
type dqblk struct {
	bhard, bsoft, space  uint64
	ihard, isoft, inodes uint64
	btime, itime         uint64
	valid                uint32
	_                    uint32
}

// state is struct fs_quota_stat, of which the flags alone are looked at.
type state struct {
	version int8
	_       int8
	flags   uint16
	_       [124]byte // what follows has 72 bytes
}

// Enforced is nil when the filesystem of f holds files to the bounds of their
// projects, and this process may set them; else ErrNotSupported, with the
// reason and what to do.
func Enforced(f *os.File) error {
	var st state
	err := quotactl(f, cmdState, 0, unsafe.Pointer(&st))
	switch {
	case errors.Is(err, unix.EPERM):
		return errno.New(errno.ErrNotSupported, "only root outside of user namespaces may set quotas")
	case errors.Is(err, unix.ENOSYS) && !hasCall(f):
		return errno.New(errno.ErrNotSupported, "the kernel has no quotas, or is older than Linux 5.14")
	case err != nil || st.flags&enforced == 0:
		return errno.New(errno.ErrNotSupported, "%s is on a filesystem without project quotas: mount it with pquota (xfs), or with prjquota (ext4 with the features quota and project)", f.Name())
	}
	return nil
}

// hasCall tells whether quotactl_fd(2) is there: a command that nobody knows
// is then EINVAL, or whatever the filesystem says, but not ENOSYS.
func hasCall(f *os.File) bool {
	return !errors.Is(quotactl(f, 0, 0, nil), unix.ENOSYS)
}

// Of returns the project that a file or directory belongs to, and whether what
// is made in it belongs there as well.
func Of(f *os.File) (id uint32, inherited bool, err error) {
	x, err := get(f)
	return x.projid, x.xflags&projInherit != 0, err
}

func get(f *os.File) (x fsxattr, err error) {
	if err = ioctl(f, fsGetXattr, &x); err != nil {
		err = &os.PathError{Op: "get the project of", Path: f.Name(), Err: err}
	}
	return x, err
}

// Join makes a file or directory one of the project's, and with a directory
// all that will be made in it.
func Join(f *os.File, id uint32, dir bool) error {
	x, err := get(f)
	if err != nil {
		return err
	}
	x.projid = id
	if dir {
		x.xflags |= projInherit
	}
	if err := ioctl(f, fsSetXattr, &x); err != nil {
		return &os.PathError{Op: "set the project of", Path: f.Name(), Err: err}
	}
	return nil
}

// Look returns a project's bounds and what its files take. f is any directory
// of the filesystem.
func Look(f *os.File, id uint32) (Bounds, Usage, error) {
	var q dqblk
	err := quotactl(f, cmdGet, id, unsafe.Pointer(&q))
	if errors.Is(err, unix.ENOENT) { // nothing is known of it
		return Bounds{}, Usage{}, nil
	}
	if err != nil {
		return Bounds{}, Usage{}, fmt.Errorf("get the quota of project %d: %w", id, err)
	}
	b := Bounds{Bytes: mostBytes, Inodes: int64(min(q.ihard, uint64(mostBytes)))}
	if q.bhard < uint64(mostBytes/blockSize) {
		b.Bytes = int64(q.bhard) * blockSize
	}
	return b, Usage{int64(q.space), int64(q.inodes)}, nil
}

// Bound sets a project's bounds; bytes are rounded up to 1024.
func Bound(f *os.File, id uint32, b Bounds) error {
	bytes := min(b.Bytes, mostBytes-blockSize)
	q := dqblk{bhard: uint64((bytes + blockSize - 1) / blockSize), ihard: uint64(b.Inodes), valid: validSet}
	if err := quotactl(f, cmdSet, id, unsafe.Pointer(&q)); err != nil {
		return fmt.Errorf("set the quota of project %d: %w", id, err)
	}
	return nil
}

// Free returns a project that has neither files nor bounds. It is random, so
// that two processes do not find the same.
func Free(f *os.File) (uint32, error) {
	for range 100 {
		id := firstID + rand.Uint32N(lastID-firstID+1)
		b, u, err := Look(f, id)
		if err != nil || b == (Bounds{}) && u == (Usage{}) {
			return id, err
		}
	}
	return 0, errno.New(errno.ErrQuota, "100 projects of %s that were tried are all in use", f.Name())
}

func ioctl(f *os.File, request uintptr, x *fsxattr) error {
	return control(f, func(fd uintptr) error {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(x)))
		return unwrap(e)
	})
}

// quotactl is quotactl_fd(2) for project quotas.
func quotactl(f *os.File, cmd uintptr, id uint32, data unsafe.Pointer) error {
	return control(f, func(fd uintptr) error {
		_, _, e := unix.Syscall6(unix.SYS_QUOTACTL_FD, fd, cmd<<8|projectQuota, uintptr(id), uintptr(data), 0, 0)
		return unwrap(e)
	})
}

func unwrap(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func control(f *os.File, call func(fd uintptr) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var called error
	return errors.Join(c.Control(func(fd uintptr) { called = call(fd) }), called)
}
