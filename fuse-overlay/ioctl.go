package fuseoverlay

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctlUUID asks for struct fsuuid2.
func ioctlUUID(fd int) (b [17]byte, ok bool) {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsGetUUID, uintptr(unsafe.Pointer(&b)))
	runtime.KeepAlive(&b)
	return b, e == 0
}
