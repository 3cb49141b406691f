package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// watcher is the shell script of a process that unmounts when this one has
// ended, however it ended: its standard input is a pipe that only this process
// holds. $1 is the mount point; what is mounted there then is dead, or it is
// not ours. (statfs is always asked of the server, attributes may be cached.)
const watcher = `read -r _
if [ "$(stat -f -c x "$1" 2>&1)" != x ]; then
	umount -l "$1" 2>/dev/null || fusermount3 -u -z "$1" 2>/dev/null
fi`

// watchMe starts the process for auto_unmount. It comes before the mount, whose
// connection it would else inherit and keep alive.
func watchMe(dir string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("auto_unmount: %w", err)
	}
	cmd := exec.Command("/bin/sh", "-c", watcher, "fuse-overlay-watch", dir)
	cmd.Dir = "/"
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("auto_unmount: %w", err)
	}
	// w stays open, unreachable and without a finalizer, until this process
	// ends.
	if _, err := syscall.Dup(int(w.Fd())); err != nil {
		return fmt.Errorf("auto_unmount: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("auto_unmount: %w", err)
	}
	return r.Close()
}
