package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// programDir holds the program that the tests run: the real one, built once.
var programDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "plyfs-cmd-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// Ordinary users run it too.
	err = os.Chmod(dir, 0o755)
	programDir = dir
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "plyfs"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, berr := build.CombinedOutput(); berr != nil {
		err = errors.Join(err, fmt.Errorf("build plyfs: %w\n%s", berr, out))
	}
	code := 1
	if err == nil {
		code = m.Run()
	}
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// program is the path of the program.
func program(t *testing.T) string {
	t.Helper()
	return filepath.Join(programDir, "plyfs")
}

// needsMount skips a test where root cannot mount.
func needsMount(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes stores with files of several owners, and mounts")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs FUSE: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// noMounts makes sure that no mount is left below dir at the test's end. The
// private bind mount of a driver's folder stays by design, as the peers leave
// it; anything else is a failure.
func noMounts(t *testing.T, dir string) {
	t.Helper()
	t.Cleanup(func() {
		mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(mounts)
		for _, m := range mounts {
			if filepath.Base(m.Mountpoint) != "overlay" && !t.Failed() {
				t.Errorf("%s (%s) is still mounted", m.Mountpoint, m.FSType)
			}
			if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
	})
}
