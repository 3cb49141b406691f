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

// futimens is utimensat without a name: the times of the descriptor itself.
func futimens(fd int, ts *[2]unix.Timespec) error {
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(ts)), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
