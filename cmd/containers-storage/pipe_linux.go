package main

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// pipeSize is the most that the kernel lets everyone have (fs.pipe-max-size).
const pipeSize = 1 << 20

// widenPipe makes the pipe that out may be as large as it can be: a stream of
// many megabytes then wakes its reader sixteen times less. What is no pipe, or
// cannot grow, stays as it is.
func widenPipe(out io.Writer) {
	if f, ok := out.(*os.File); ok {
		_, _ = unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, pipeSize)
	}
}
