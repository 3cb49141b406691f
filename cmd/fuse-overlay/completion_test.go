package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/cmd/fuse-overlay/internal/options"
	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestCompletion: bash completes flags, options and directories, and each shell
// that is installed takes its script.
func TestCompletion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		out, e, status := call(t, "--completion="+shell)
		if status != 0 || e != "" {
			t.Fatalf("%s: %d %q", shell, status, e)
		}
		file := filepath.Join(dir, shell)
		if err := os.WriteFile(file, []byte(out), 0o600); err != nil {
			t.Fatal(err)
		}
		if path, err := exec.LookPath(shell); err != nil {
			t.Logf("%s is not installed", shell)
		} else if out, err := exec.Command(path, "-n", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", shell, err, out)
		}
	}
	if err := os.MkdirAll(dir+"/folder/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"fuse-overlay --ver":                          "--version",
		"fuse-overlay -o lowerd":                      "lowerdir= lowerdir+=",
		"fuse-overlay -o ro,lowerdir=x,upp":           "ro,lowerdir=x,upperdir=",
		"fuse-overlay -o ro,lowerdir=" + dir + "/fol": dir + "/folder",
		"fuse-overlay -o lowerdir=/x:" + dir + "/fol": dir + "/folder",
		"fuse-overlay -o lowerdir=x " + dir + "/fold": dir + "/folder",
		"fuse-overlay -o xattr_":                      "xattr_permissions=",
	} {
		got := fusetest.Must(t, `set +eu; . "$1"; COMP_LINE=$2 COMP_POINT=${#2}; _fuse_overlay 2>/dev/null; printf '%s\n' "${COMPREPLY[@]}" | sort | paste -sd ' '`, dir+"/bash", line)
		words := strings.Fields(want)
		if len(words) == 2 {
			words = []string{words[1], words[0]}
		}
		if g := strings.Fields(got); strings.Join(g, " ") != want && strings.Join(g, " ") != strings.Join(words, " ") {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	if _, e, status := call(t, "--completion=tcsh"); status != 1 || !strings.Contains(e, "tcsh") {
		t.Errorf("tcsh: %d %q", status, e)
	}
}

// TestHelpNamesOptions: what there is, is in the help and so in the manual page.
func TestHelpNamesOptions(t *testing.T) {
	t.Parallel()
	for _, name := range options.Names() {
		if !strings.Contains(long, strings.TrimSuffix(name, "=")) {
			t.Errorf("the help says nothing of %s", name)
		}
	}
}
