package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// TestScripts runs tests/scripts/*.txtar with the real program, but for those
// of containers-storage.
func TestScripts(t *testing.T) {
	needsMount(t)
	files, err := filepath.Glob("../../tests/scripts/*.txtar")
	files = slices.DeleteFunc(files, func(f string) bool { return strings.HasPrefix(filepath.Base(f), "storage-") })
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	testscript.Run(t, testscript.Params{
		Files: files,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("LC_ALL", "C")
			env.Setenv("PATH", programDir+":"+os.Getenv("PATH"))
			env.Defer(func() {
				if err := unmountBelow(env.WorkDir); err != nil {
					t.Error(err)
				}
			})
			return os.MkdirAll(home, 0o755)
		},
	})
}

// unmountBelow unmounts what a script left below dir.
func unmountBelow(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	slices.Reverse(mounts)
	for _, m := range mounts {
		err = errors.Join(err, unix.Unmount(m.Mountpoint, unix.MNT_DETACH))
	}
	return err
}
