//go:build linux

package mounts

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
)

// attach makes the mapped copies of a plan; detach takes away those that were
// made. mount_setattr(2), "ID-mapped mounts".
func attach(list []Mapping) (detach func() error, err error) {
	var made []string
	detach = func() error {
		var errs []error
		for _, at := range made {
			if err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				errs = append(errs, fmt.Errorf("unmounting %s: %w", at, err))
			}
		}
		return errors.Join(errs...)
	}
	if len(list) == 0 {
		return detach, nil
	}
	ns, err := userNamespace(list[0].Maps)
	if err != nil {
		return detach, err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	for _, m := range list {
		if err := attachOne(m, ns); err != nil {
			return detach, fmt.Errorf("mapping the owners of %s: %w", m.From, err)
		}
		made = append(made, m.At)
	}
	return detach, nil
}

func attachOne(m Mapping, ns *os.File) (err error) {
	if err := DetachAll(m.At); err != nil { // what a killed mount left
		return err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, m.From, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return &os.PathError{Op: "open_tree", Path: m.From, Err: err}
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return errno.New(errno.ErrNotSupported, "this kernel or filesystem has no ID-mapped mounts: set _CONTAINERS_OVERLAY_DISABLE_IDMAP=yes: %w", err)
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, m.At, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "move_mount", Path: m.At, Err: err}
	}
	return nil
}

// DetachAll takes away whatever is mounted on target, however often.
func DetachAll(target string) error {
	for {
		is, err := IsMountPoint(target)
		if errors.Is(err, os.ErrNotExist) || err == nil && !is {
			return nil
		}
		if err != nil {
			return err
		}
		if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmounting %s: %w", target, err)
		}
	}
}

// userNamespace opens a user namespace with these maps, an empty list being
// the identity. A process is needed to make one: it stops, traced, before the
// first instruction of its program, and is killed once the namespace is open.
func userNamespace(m idmap.Maps) (ns *os.File, err error) {
	runtime.LockOSThread() // a tracer is a thread
	defer runtime.UnlockOSThread()
	p, err := os.StartProcess("/proc/self/exe", []string{"user-namespace"}, &os.ProcAttr{
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER, Ptrace: true, Pdeathsig: syscall.SIGKILL,
			UidMappings: idMappings(m.UIDs), GidMappings: idMappings(m.GIDs), GidMappingsEnableSetgroups: true,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("making a user namespace with the ID maps: %w", err)
	}
	ns, err = os.Open("/proc/" + strconv.Itoa(p.Pid) + "/ns/user")
	if kerr := p.Kill(); kerr != nil && !errors.Is(kerr, os.ErrProcessDone) {
		err = errors.Join(err, kerr)
	}
	if _, werr := p.Wait(); werr != nil {
		err = errors.Join(err, werr)
	}
	if err != nil && ns != nil {
		err = errors.Join(err, ns.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("opening a user namespace with the ID maps: %w", err)
	}
	return ns, nil
}

func idMappings(ranges []idmap.Range) []syscall.SysProcIDMap {
	if len(ranges) == 0 {
		const all = 1<<32 - 1
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: all}}
	}
	out := make([]syscall.SysProcIDMap, 0, len(ranges))
	for _, r := range ranges {
		out = append(out, syscall.SysProcIDMap{ContainerID: r.ContainerID, HostID: r.HostID, Size: r.Size})
	}
	return out
}
