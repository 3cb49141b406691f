//go:build linux

package mounts

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
)

// errTooLong says that the options of a mount fit no page.
var errTooLong = errors.New("options too long for this kernel")

// mountByString mounts p with mount(2), whose options are one string of less
// than a page.
func mountByString(p Plan) error {
	data := dataString(p, func(_ int, path string) string { return escape(path, ":,") })
	if len(data) < os.Getpagesize() {
		if err := unix.Mount("overlay", p.Target, "overlay", p.Flags, data); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		return nil
	}
	return mountByNumbers(p)
}

func dataString(p Plan, lower func(i int, path string) string) string {
	names := make([]string, len(p.Lowers))
	for i, path := range p.Lowers {
		names[i] = lower(i, path)
	}
	parts := []string{"lowerdir=" + strings.Join(names, ":")}
	if p.Upper != "" {
		parts = append(parts, "upperdir="+escape(p.Upper, ","), "workdir="+escape(p.Work, ","))
	}
	return strings.Join(append(parts, p.Options...), ",")
}

// mountByNumbers opens the lowers and names each by its descriptor's number,
// relative to /proc/thread-self/fd.
func mountByNumbers(p Plan) error {
	files := make([]*os.File, 0, len(p.Lowers))
	defer func() {
		for _, f := range files {
			_ = f.Close() // O_PATH: nothing can be lost
		}
	}()
	for _, dir := range p.Lowers {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("lowerdir: %w", &os.PathError{Op: "open", Path: dir, Err: err})
		}
		files = append(files, os.NewFile(uintptr(fd), dir))
	}
	data := dataString(p, func(i int, _ string) string { return strconv.Itoa(int(files[i].Fd())) })
	if len(data) >= os.Getpagesize() {
		return errno.New(errno.ErrNotSupported, "mounting %s: %d lower layers need options of %d bytes, and this kernel takes %d: %w", p.Target, len(p.Lowers), len(data), os.Getpagesize()-1, errTooLong)
	}
	return inFdDirectory(func() error {
		if err := unix.Mount("overlay", p.Target, "overlay", p.Flags, data); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		return nil
	})
}

// inFdDirectory runs fn on a thread whose working directory, and only whose,
// is the folder of the process's descriptors. The thread ends with the call.
func inFdDirectory(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- fmt.Errorf("unshare working directory: %w", err)
			return
		}
		if err := unix.Chdir("/proc/thread-self/fd"); err != nil {
			done <- errors.Join(errors.New("enter descriptors' folder"), err)
			return
		}
		done <- fn()
	}()
	return <-done
}
