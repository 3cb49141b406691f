package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// shareRange lets n bytes at off of dst share the blocks of src, if the kernel
// finds them equal (ioctl FIDEDUPERANGE, ioctl_fideduperange(2)), and returns
// how many are; 0 without error when they differ. dst needs no write access of
// a privileged process.
func shareRange(src, dst *os.File, off, n int64) (int64, error) {
	r := unix.FileDedupeRange{
		Src_offset: uint64(off), Src_length: uint64(n),
		Info: []unix.FileDedupeRangeInfo{{Dest_fd: int64(dst.Fd()), Dest_offset: uint64(off)}},
	}
	if err := unix.IoctlFileDedupeRange(int(src.Fd()), &r); err != nil {
		return 0, err
	}
	switch status := r.Info[0].Status; {
	case status == unix.FILE_DEDUPE_RANGE_SAME:
		return int64(r.Info[0].Bytes_deduped), nil
	case status < 0:
		return 0, unix.Errno(-status)
	}
	return 0, nil
}
