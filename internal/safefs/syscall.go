//go:build linux && !portable

package safefs

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// syscallPinned makes one of the xattrat calls with args pointing at buf.
func syscallPinned(buf *byte, args *xattrArgs, call uintptr, fd int, name, attr *byte) (int, unix.Errno) {
	if buf != nil {
		var pin runtime.Pinner
		pin.Pin(buf)
		defer pin.Unpin()
		args.value = uint64(uintptr(unsafe.Pointer(buf)))
	}
	r, _, e := unix.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(name)), unix.AT_SYMLINK_NOFOLLOW,
		uintptr(unsafe.Pointer(attr)), uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args))
	return int(r), e
}

// cName is a name with its zero byte, on the stack: x/sys makes each on the heap.
type cName [256]byte

// set takes a name; false if it is too long, and then x/sys tells what becomes
// of it. Names were checked for zero bytes.
func (c *cName) set(name string) bool {
	if len(name) >= len(c) {
		return false
	}
	c[copy(c[:], name)] = 0
	return true
}

// statx is statx(2).
func statx(fd int, name string, flags, mask int, x *unix.Statx_t) error {
	var c cName
	if !c.set(name) {
		return unix.Statx(fd, name, flags, mask, x)
	}
	_, _, e := unix.Syscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(&c)), uintptr(flags), uintptr(mask), uintptr(unsafe.Pointer(x)), 0)
	if e != 0 {
		return e
	}
	return nil
}

// futimens is utimensat without a name: the times of the descriptor itself.
func futimens(fd int, ts *[2]unix.Timespec) error {
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(ts)), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
