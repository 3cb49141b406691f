//go:build linux

package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
)

// Do acts on p. Errors name the target and the reason in the kernel's or the
// program's own words. ctx ends the wait for a mount program. Nothing is
// mounted when Do fails. Target must exist; that something is mounted there
// already is the caller's count to know. Programs have the scheduling policy of the
// process, whatever the caller's thread has.
func Do(ctx context.Context, p Plan) error {
	// A process inherits policy and processors of the thread that starts it, and a
	// thread that answers FUSE requests may have its own (internal/fusewire). The
	// runtime starts no goroutine on a thread that belongs to another.
	done := make(chan error, 1)
	go func() { done <- do(ctx, p) }()
	return <-done
}

func do(ctx context.Context, p Plan) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	st, err := os.Stat(p.Target)
	if err != nil {
		return fmt.Errorf("mounting: %w", err)
	}
	if !st.IsDir() {
		return errno.New(errno.ErrNotDir, "mounting: %s is not a directory", p.Target)
	}
	if p.Type == "" && p.Program == "" {
		return nil
	}
	if p.Home != "" {
		if err := BindPrivate(p.Home); err != nil {
			return err
		}
	}
	if p.Program != "" {
		return runProgram(ctx, p)
	}
	if p.Type != "overlay" {
		return errno.New(errno.ErrNotSupported, "mounting %s: filesystem type %q is not one this program mounts", p.Target, p.Type)
	}
	detach, err := attach(p.Mapped)
	if err == nil {
		err = kernelOverlay(p)
	}
	return errors.Join(err, detach())
}

// maxShown bounds what the paths of a mount's lowers may add to its line in
// /proc/self/mountinfo, in bytes. Many programs read that file with a buffer
// of 64 KiB a line and fail for every mount of the machine if one is longer.
const maxShown = 16 << 10

// kernelOverlay mounts with the newest interface that the kernel has, and
// chains whose paths are long by descriptors' numbers, which are short.
func kernelOverlay(p Plan) error {
	shown := 0
	for _, path := range p.Lowers {
		shown += len(path) + 1
	}
	err := errTooLong
	if shown > maxShown {
		err = mountByNumbers(p)
	}
	if errors.Is(err, errTooLong) {
		err = mountByDescriptors(p)
	}
	if errors.Is(err, errNoDescriptors) {
		err = mountByString(p)
	}
	if err == nil {
		return nil
	}
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("mounting overlay on %s: %w (needs CAP_SYS_ADMIN: be root, enter a user namespace, or set mount_program)", p.Target, err)
	case errors.Is(err, unix.ENODEV):
		return errno.New(errno.ErrNotSupported, "mounting overlay on %s: this kernel has no overlay filesystem: load the module `overlay`, or set mount_program: %w", p.Target, err)
	case errors.Is(err, unix.EBUSY):
		return errno.New(errno.ErrInUse, "mounting overlay on %s: its upper or work directory is in use by another mount: %w", p.Target, err)
	case errors.Is(err, unix.EINVAL) && slices.ContainsFunc(p.Options, isLabel):
		return errno.New(errno.ErrNotSupported, "mounting overlay on %s with an SELinux label: this kernel has no SELinux, or its policy does not know the label: make the container again without a label, or boot with SELinux: %w", p.Target, err)
	}
	return fmt.Errorf("mounting overlay on %s: %w", p.Target, err)
}

// isLabel tells whether a mount option is a label for all files.
func isLabel(option string) bool { return strings.HasPrefix(option, "context=") }

// BindPrivate makes dir a private mount point of its own unless it is a mount
// point already. See the package comment for why and for what a kill leaves.
func BindPrivate(dir string) (err error) {
	is, err := IsMountPoint(dir)
	if err != nil || is {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("binding %s on itself: %w", dir, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("binding %s on itself: lock: %w", dir, err)
	}
	if is, err := IsMountPoint(dir); err != nil || is {
		return err
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding %s on itself: %w", dir, err)
	}
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making %s a private mount: %w", dir, err)
	}
	return nil
}

// UnbindPrivate takes away the mount that BindPrivate made; nothing there is
// no error. ErrInUse while something is mounted below dir. Mere open files
// (those of a mount program that is about to end) keep their file system, so
// they don't matter.
func UnbindPrivate(dir string) error {
	is, err := IsMountPoint(dir)
	if err != nil || !is {
		return err
	}
	below, err := Below(dir)
	if err != nil {
		return fmt.Errorf("unbinding %s: %w", dir, err)
	}
	if len(below) > 0 {
		return errno.New(errno.ErrInUse, "unbinding %s: %s is still mounted: unmount it first", dir, below[0])
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unbinding %s: %w", dir, err)
	}
	return nil
}
