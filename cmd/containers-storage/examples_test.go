package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// exampleSetup makes what examples refer to, as far as the verb under test
// does not make it itself, or needs it unused.
func exampleSetup(verb string) string {
	setup := `mkdir -p rootfs/etc && echo root:x:0:0::/:/bin/sh >rootfs/etc/passwd && tar -cf rootfs.tar -C rootfs . && tar -cf changes.tar -C rootfs ./etc
printf '[storage]\ndriver = "vfs"\n' >storage.conf
`
	steps := []struct{ unless, script string }{
		{"create-layer import-layer", "containers-storage import-layer --name base-layer --file rootfs.tar\n"},
		{"delete-layer create-layer import-layer", "containers-storage create-layer --name top base-layer\n"},
		{"create-layer import-layer", "containers-storage create-layer --name other\n"},
		{"delete-layer create-layer import-layer create-image", `containers-storage create-image --name app:latest base-layer
echo '{}' | containers-storage set-image-data app:latest manifest
echo '{}' | containers-storage set-layer-data base-layer manifest
`},
		{"delete-layer create-layer import-layer create-image create-container delete-image", `containers-storage create-container --name web app:latest
echo '{}' | containers-storage set-container-data web manifest
`},
		{"mount create-layer import-layer create-image create-container delete-image delete-layer", "containers-storage mount web\n"},
	}
	for _, s := range steps {
		if !strings.Contains(" "+s.unless+" ", " "+verb+" ") {
			setup += s.script
		}
	}
	switch verb {
	case "delete-container", "copy", "applydiff", "applydiff-using-staging-dir", "delete":
		setup += "containers-storage unmount --force web\n"
	}
	return setup
}

// TestExamplesRun runs the example of each verb, as help and the manual pages
// show it, on a store that has the objects that it names.
func TestExamplesRun(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes stores with files of several owners")
	}
	for _, v := range (&app{}).verbs() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if v.name == "dedup" {
				_, dir = fusetest.Loop(t, dir, 300, "mkfs.btrfs -q", "")
			}
			conf := fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", filepath.Join(dir, "root"), filepath.Join(dir, "run"))
			if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o644); err != nil {
				t.Fatal(err)
			}
			work := filepath.Join(dir, "work")
			if err := os.Mkdir(work, 0o755); err != nil {
				t.Fatal(err)
			}
			shell := func(script string) (string, error) {
				cmd := exec.Command("sh", "-ec", script)
				cmd.Dir = work
				cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+filepath.Dir(ours)+":"+os.Getenv("PATH"), "CONTAINERS_STORAGE_CONF="+filepath.Join(dir, "conf"))
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			if out, err := shell(exampleSetup(v.name)); err != nil {
				t.Fatalf("setup: %v\n%s", err, out)
			}
			out, err := shell(v.example)
			if err != nil {
				t.Errorf("%v\n%s\n%s", err, v.example, out)
			}
		})
	}
}
