package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestManualPagesAreCurrent: docs/man holds what the commands say now.
func TestManualPagesAreCurrent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.Command("go", "run", "-tags", "docs", ".", "docs", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	fresh, err := filepath.Glob(dir + "/*.1")
	if err != nil || len(fresh) == 0 {
		t.Fatal("no pages were made", err)
	}
	for _, page := range fresh {
		want, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("../../docs/man", filepath.Base(page)))
		if err != nil || string(got) != string(want) {
			t.Errorf("docs/man/%s is not what the command says (%v): run make docs", filepath.Base(page), err)
		}
	}
	there, err := filepath.Glob("../../docs/man/plyfs*.1")
	if err != nil || len(there) != len(fresh) {
		t.Errorf("docs/man has %d pages, there are %d commands (%v)", len(there), len(fresh), err)
	}
}

// TestEveryVerbHasAnExample walks the command tree.
func TestEveryVerbHasAnExample(t *testing.T) {
	t.Parallel()
	root := (&app{}).root()
	for _, c := range append(root.Commands(), root) {
		if c.Name() == "help" || c.Name() == "completion" || c.HasSubCommands() && c != root {
			continue
		}
		if !strings.Contains(c.Example, "plyfs") {
			t.Errorf("plyfs %s has no example", c.Name())
		}
	}
}
