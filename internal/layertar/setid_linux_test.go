package layertar_test

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/plyfs/plyfs/internal/layertar"
)

const setIDEnv = "PLYFS_LAYERTAR_TEST_SETID"

// TestSetIDNeedsItsOwner: what cannot be given its owner keeps no set-ID bits,
// with which it would run as whoever extracts it.
func TestSetIDNeedsItsOwner(t *testing.T) {
	t.Parallel()
	if os.Getenv(setIDEnv) == "" {
		// In a user namespace that maps one ID, others cannot be given.
		cmd := exec.Command(os.Args[0], "-test.run", "^TestSetIDNeedsItsOwner$")
		cmd.Env = append(os.Environ(), setIDEnv+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if _, started := err.(*exec.ExitError); err != nil && !started { //nolint:errorlint // Run returns it bare
			t.Skipf("no user namespace is to be had here: %v", err)
		}
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	want := map[string]os.FileMode{}
	for _, uid := range []int{0, 5} {
		for _, h := range []tar.Header{{Typeflag: tar.TypeReg, Mode: 0o6755}, {Typeflag: tar.TypeDir, Mode: 0o3755}, {Typeflag: tar.TypeFifo, Mode: 0o4711}} {
			h.Name, h.Uid = string(h.Typeflag)+string(rune('0'+uid)), uid
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			want[h.Name] = h.FileInfo().Mode()
			if uid != 0 {
				want[h.Name] &^= os.ModeSetuid | os.ModeSetgid
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir, _, _, err := importTar(t, b.Bytes(), layertar.ApplyOptions{IgnoreChownErrors: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range want {
		if fi, err := os.Lstat(filepath.Join(dir, name)); err != nil || fi.Mode() != mode {
			t.Errorf("%s: %v, %v; want the mode %v", name, fi, err, mode)
		}
	}
}
