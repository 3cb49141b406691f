package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/cmdtest"
)

// programDir holds the program that the tests run: the real one, built once.
var programDir string

func TestMain(m *testing.M) {
	os.Exit(cmdtest.Main(m, "plyfs", func(path string) { programDir = filepath.Dir(path) }, ""))
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
