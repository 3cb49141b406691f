package fusetest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// apartEnv tells a test binary that it, or one that started it, has a mount
// namespace of its own.
const apartEnv = "PLYFS_TEST_APART"

// Apart starts this test binary again, as the same process, in a mount
// namespace of its own. A namespace is made with a copy of every mount of its
// maker's; were the tests' mounts in the machine's, every container and every
// ordinary user of another test would hold copies of them for as long as it
// lives, and a layer's mount would go on after its unmount: the kernel's
// overlay then answers EBUSY to the next mount of the same upper, and the
// server of a FUSE mount does not end. What a killed test leaves mounted goes
// with its namespace, too.
//
// Call it first in TestMain. It returns at once where it was done before, and
// for who may not make namespaces; what stands in its way otherwise is the
// error. It asks for no lock and leaves signals and descriptors as they are.
func Apart() error {
	if os.Getenv(apartEnv) != "" || os.Geteuid() != 0 {
		return nil
	}
	runtime.LockOSThread() // the namespace is the thread's, and execve keeps the caller's
	defer runtime.UnlockOSThread()
	switch err := unix.Unshare(unix.CLONE_NEWNS); {
	case errors.Is(err, unix.EPERM):
		return nil
	case err != nil:
		return fmt.Errorf("a mount namespace for the tests: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounts that nobody else sees: %w", err)
	}
	exe, err := os.Executable()
	if err = errors.Join(err, os.Setenv(apartEnv, "1")); err != nil {
		return err
	}
	return fmt.Errorf("start %s again: %w", exe, syscall.Exec(exe, os.Args, os.Environ()))
}
