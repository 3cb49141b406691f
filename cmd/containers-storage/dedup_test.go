package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestDedupOption: with `dedup=true` on the command line a new layer's files
// share the blocks of equal ones, of an older layer too; without it none do.
func TestDedupOption(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts a filesystem that can share blocks")
	}
	if _, err := exec.LookPath("filefrag"); err != nil {
		t.Skipf("filefrag says where blocks are: %v", err)
	}
	for driver, at := range map[string]string{"overlay": "overlay/%s/diff", "vfs": "vfs/dir/%s"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			_, dir := fusetest.Loop(t, t.TempDir(), 300, "mkfs.btrfs -q", "")
			files := filepath.Join(dir, "files")
			if err := os.Mkdir(files, 0o755); err != nil {
				t.Fatal(err)
			}
			var text strings.Builder // which no filesystem compresses into nothing
			for i := range 64 << 10 {
				fmt.Fprintf(&text, "%x", i*i*2654435761)
			}
			for _, name := range []string{"one", "two"} {
				if err := os.WriteFile(filepath.Join(files, name), []byte(text.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for _, option := range []string{"", "--storage-opt " + driver + ".dedup=true"} {
				root := filepath.Join(dir, "without")
				if option != "" {
					root = filepath.Join(dir, "with")
				}
				script := strings.NewReplacer("CS", ours+" -s "+driver+" -g "+root+"/g -R "+root+"/r "+option, "FILES", files).Replace(
					"tar -c -C FILES one | CS import-layer -i a; tar -c -C FILES two | CS import-layer -i b; sync -f FILES; CS shutdown; ! mountpoint -q " + root + "/g/overlay || umount " + root + "/g/overlay")
				if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s\n%s", err, script, out)
				}
				one := blocks(t, filepath.Join(root, "g", fmt.Sprintf(at, "a"), "one"))
				two := blocks(t, filepath.Join(root, "g", fmt.Sprintf(at, "b"), "two"))
				if shared := one == two; shared != (option != "") {
					t.Errorf("%q: the blocks are %s and %s", option, one, two)
				}
			}
		})
	}
}

// blocks says where a file's blocks are on its filesystem.
func blocks(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command("filefrag", "-v", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	found := regexp.MustCompile(`(?m)^ +\d+: +\d+\.\. +\d+: +(\d+\.\. +\d+):`).FindAllStringSubmatch(string(out), -1)
	if len(found) == 0 {
		t.Fatalf("%s has no blocks:\n%s", path, out)
	}
	var at []string
	for _, f := range found {
		at = append(at, f[1])
	}
	return strings.Join(at, " ")
}
