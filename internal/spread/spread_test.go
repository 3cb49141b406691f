//go:build linux

package spread

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDirs: the mark is lsattr's T, on ext4; elsewhere an error says that there is none.
func TestDirs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	err := Dirs(dir)
	if st.Type != unix.EXT4_SUPER_MAGIC {
		t.Skipf("%s is not on ext4: %v", dir, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("lsattr", "-d", dir).CombinedOutput()
	if err != nil {
		t.Skipf("lsattr: %v: %s", err, out)
	}
	if marks, _, _ := strings.Cut(string(out), " "); !strings.Contains(marks, "T") {
		t.Errorf("it has %s", out)
	}
}

// TestDirsRefused: what cannot have the mark is named.
func TestDirsRefused(t *testing.T) {
	t.Parallel()
	if err := Dirs(filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) {
		t.Errorf("no directory: %v", err)
	}
	if err := Dirs("/proc/self"); err == nil || !strings.Contains(err.Error(), "/proc/self") {
		t.Errorf("a directory without marks: %v", err)
	}
}
