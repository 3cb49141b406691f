//go:build linux && !portable

package safefs

import (
	"errors"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxXattr is the kernel's limit on a value and on a list (XATTR_SIZE_MAX).
const maxXattr = 64 << 10

// Getxattr returns the value of attr of name ("." for d itself), a symlink's
// own too. ENODATA when there is none, EOPNOTSUPP when the filesystem has none.
func (d *Dir) Getxattr(name, attr string) ([]byte, error) {
	if err := checkOrDot("getxattr", name); err != nil {
		return nil, err
	}
	v, err := fetch(func(b []byte) (int, error) {
		if d.readable && name == "." {
			return unix.Fgetxattr(d.fd, attr, b)
		}
		return d.xattr().get(d.fd, name, attr, b)
	})
	return v, failAttr("getxattr", attr, name, err)
}

// Listxattr returns the names of name's ("." for d itself) attributes.
func (d *Dir) Listxattr(name string) ([]string, error) {
	if err := checkOrDot("listxattr", name); err != nil {
		return nil, err
	}
	v, err := fetch(func(b []byte) (int, error) { return d.xattr().list(d.fd, name, b) })
	return SplitNames(v), fail("listxattr", name, err)
}

// ListxattrTo is Listxattr without an allocation where buf is large enough for
// the names, which it returns one after another, each with a zero byte.
func (d *Dir) ListxattrTo(buf []byte, name string) ([]byte, error) {
	if err := checkOrDot("listxattr", name); err != nil {
		return nil, err
	}
	if d.readable && name == "." {
		return listOwn(d.fd, name, buf)
	}
	n, err := d.listInto(name, buf)
	switch {
	case err == nil:
		return buf[:n], nil
	case errors.Is(err, unix.ERANGE), errors.Is(err, unix.EINTR):
		buf, err = fetch(func(b []byte) (int, error) { return d.xattr().list(d.fd, name, b) })
	}
	return buf, fail("listxattr", name, err)
}

// listInto calls no interface, through which buf would have to be on the heap.
func (d *Dir) listInto(name string, buf []byte) (int, error) {
	if xattratWorks() {
		return xattrat{}.list(d.fd, name, buf)
	}
	return xattrProc{}.list(d.fd, name, buf)
}

// listOwn is ListxattrTo for a descriptor that is no O_PATH one.
func listOwn(fd int, name string, buf []byte) ([]byte, error) {
	n, err := unix.Flistxattr(fd, buf)
	switch {
	case err == nil:
		return buf[:n], nil
	case errors.Is(err, unix.ERANGE), errors.Is(err, unix.EINTR):
		buf, err = fetch(func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	}
	return buf, fail("listxattr", name, err)
}

// Setxattr sets attr of name ("." for d itself). Flags are XATTR_CREATE and
// XATTR_REPLACE.
func (d *Dir) Setxattr(name, attr string, value []byte, flags int) error {
	if err := checkOrDot("setxattr", name); err != nil {
		return err
	}
	return failAttr("setxattr", attr, name, retry(func() error { return d.xattr().set(d.fd, name, attr, value, flags) }))
}

// Removexattr removes attr of name ("." for d itself).
func (d *Dir) Removexattr(name, attr string) error {
	if err := checkOrDot("removexattr", name); err != nil {
		return err
	}
	return failAttr("removexattr", attr, name, retry(func() error { return d.xattr().remove(d.fd, name, attr) }))
}

// Getxattr is Dir.Getxattr for the file.
func (r *Ref) Getxattr(attr string) ([]byte, error) {
	v, err := fetch(func(b []byte) (int, error) {
		if r.open {
			return unix.Fgetxattr(r.fd, attr, b)
		}
		return unix.Getxattr(procFd(r.fd), attr, b)
	})
	return v, failAttr("getxattr", attr, "", err)
}

// Listxattr is Dir.Listxattr for the file.
func (r *Ref) Listxattr() ([]string, error) {
	v, err := fetch(func(b []byte) (int, error) {
		if r.open {
			return unix.Flistxattr(r.fd, b)
		}
		return unix.Listxattr(procFd(r.fd), b)
	})
	return SplitNames(v), fail("listxattr", "", err)
}

// Setxattr is Dir.Setxattr for the file.
func (r *Ref) Setxattr(attr string, value []byte, flags int) error {
	return failAttr("setxattr", attr, "", retry(func() error {
		if r.open {
			return unix.Fsetxattr(r.fd, attr, value, flags)
		}
		return unix.Setxattr(procFd(r.fd), attr, value, flags)
	}))
}

// Removexattr is Dir.Removexattr for the file.
func (r *Ref) Removexattr(attr string) error {
	return failAttr("removexattr", attr, "", retry(func() error {
		if r.open {
			return unix.Fremovexattr(r.fd, attr)
		}
		return unix.Removexattr(procFd(r.fd), attr)
	}))
}

// failAttr is fail for the attribute attr of name.
func failAttr(op, attr, name string, err error) error {
	if err == nil {
		return nil
	}
	return fail(op+" "+attr, name, err)
}

// fetch calls get with a small buffer, and while that is too small with the
// size that the kernel names: a value may grow in between.
func fetch(get func([]byte) (int, error)) ([]byte, error) {
	var small [256]byte
	buf := small[:]
	for range 16 {
		n, err := get(buf)
		switch {
		case err == nil:
			return append(make([]byte, 0, n), buf[:n]...), nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.ERANGE):
			return nil, err
		}
		if n, err = get(nil); err != nil {
			return nil, err
		}
		buf = make([]byte, min(n+256, maxXattr))
	}
	return nil, syscall.ERANGE
}

// xattrAPI is one way to reach the attributes of (descriptor, name).
type xattrAPI interface {
	get(fd int, name, attr string, buf []byte) (int, error)
	list(fd int, name string, buf []byte) (int, error)
	set(fd int, name, attr string, value []byte, flags int) error
	remove(fd int, name, attr string) error
}

func (d *Dir) xattr() xattrAPI {
	if xattratWorks() {
		return xattrat{}
	}
	return xattrProc{}
}

// xattrProc goes through /proc/self/fd; see the package comment.
type xattrProc struct{}

func procName(fd int, name string) string { return procFd(fd) + "/" + name }

func (xattrProc) get(fd int, name, attr string, buf []byte) (int, error) {
	return unix.Lgetxattr(procName(fd, name), attr, buf)
}

func (xattrProc) list(fd int, name string, buf []byte) (int, error) {
	return unix.Llistxattr(procName(fd, name), buf)
}

func (xattrProc) set(fd int, name, attr string, value []byte, flags int) error {
	return unix.Lsetxattr(procName(fd, name), attr, value, flags)
}

func (xattrProc) remove(fd int, name, attr string) error {
	return unix.Lremovexattr(procName(fd, name), attr)
}

// xattrat uses the calls of Linux 6.13. x/sys has their numbers only.
type xattrat struct{}

// xattrArgs is struct xattr_args of linux/xattr.h.
type xattrArgs struct {
	value uint64
	size  uint32
	flags uint32
}

// xattratWorks probes getxattrat once, with a descriptor that cannot be: EBADF
// says that the call is there.
var xattratWorks = sync.OnceValue(func() bool { //nolint:gochecknoglobals // a probe made once, never assigned
	_, err := xattrat{}.get(-1, "x", "user.x", nil)
	return errors.Is(err, unix.EBADF)
})

func (xattrat) get(fd int, name, attr string, buf []byte) (int, error) {
	return xattratValue(unix.SYS_GETXATTRAT, fd, name, attr, buf, 0)
}

func (xattrat) set(fd int, name, attr string, value []byte, flags int) error {
	_, err := xattratValue(unix.SYS_SETXATTRAT, fd, name, attr, value, flags)
	return err
}

func xattratValue(call uintptr, fd int, name, attr string, buf []byte, flags int) (int, error) {
	n, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	a, err := unix.BytePtrFromString(attr)
	if err != nil {
		return 0, err
	}
	// args holds the buffer's address as a number, which the collector does
	// not follow: pinned keeps the buffer where it is until the call is over.
	p := unsafe.SliceData(buf)
	args := &xattrArgs{size: uint32(len(buf)), flags: uint32(flags)}
	r, e := syscallPinned(p, args, call, fd, n, a)
	if e != 0 {
		return 0, e
	}
	return r, nil
}

func (xattrat) list(fd int, name string, buf []byte) (int, error) {
	var n cName
	if !n.set(name) {
		return 0, unix.ENAMETOOLONG
	}
	r, _, e := unix.Syscall6(unix.SYS_LISTXATTRAT, uintptr(fd), uintptr(unsafe.Pointer(&n)), unix.AT_SYMLINK_NOFOLLOW,
		uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), 0)
	if e != 0 {
		return 0, e
	}
	return int(r), nil
}

func (xattrat) remove(fd int, name, attr string) error {
	n, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	a, err := unix.BytePtrFromString(attr)
	if err != nil {
		return err
	}
	_, _, e := unix.Syscall6(unix.SYS_REMOVEXATTRAT, uintptr(fd), uintptr(unsafe.Pointer(n)), unix.AT_SYMLINK_NOFOLLOW,
		uintptr(unsafe.Pointer(a)), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
