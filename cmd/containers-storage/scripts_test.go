package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs tests/scripts/storage-*.txtar with the real program: what
// the peers' program of 1.43 has not, or does otherwise.
func TestScripts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes stores with files of several owners, and mounts")
	}
	files, err := filepath.Glob("../../tests/scripts/storage-*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	testscript.Run(t, testscript.Params{
		Files: files,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			for name, value := range map[string]string{
				"HOME": home, "LC_ALL": "C", "PATH": filepath.Dir(ours) + ":" + os.Getenv("PATH"),
				"CONTAINERS_STORAGE_CONF": filepath.Join(env.WorkDir, "storage.conf"),
			} {
				env.Setenv(name, value)
			}
			env.Defer(func() {
				if err := unmountBelow(env.WorkDir); err != nil {
					t.Error(err)
				}
			})
			conf := "[storage]\ndriver = \"overlay\"\ngraphroot = \"" + env.WorkDir + "/root\"\nrunroot = \"" + env.WorkDir + "/run\"\n"
			if err := os.WriteFile(filepath.Join(env.WorkDir, "storage.conf"), []byte(conf), 0o644); err != nil {
				return err
			}
			return os.MkdirAll(home, 0o755)
		},
	})
}
