package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestManualPagesAreCurrent: docs/man holds what the commands say now, a page
// for each verb.
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
	there, err := filepath.Glob("../../docs/man/containers-storage*.1")
	if err != nil || len(there) != len(fresh) {
		t.Errorf("docs/man has %d pages, there are %d commands (%v)", len(there), len(fresh), err)
	}
	for _, v := range (&app{}).verbs() {
		if _, err := os.Stat(filepath.Join(dir, program+"-"+v.name+".1")); err != nil {
			t.Errorf("%s has no page: %v", v.name, err)
		}
	}
}

// TestEveryVerbIsExplained: each verb has an example, words beside its name,
// and arguments that are completed if it takes any.
func TestEveryVerbIsExplained(t *testing.T) {
	t.Parallel()
	a := &app{}
	for _, v := range a.verbs() {
		if !strings.Contains(v.example, program+" ") || !strings.Contains(v.example, v.name) {
			t.Errorf("%s has no example of itself", v.name)
		}
		if v.short == "" || strings.HasSuffix(v.short, ".") {
			t.Errorf("%s: the short text is %q", v.name, v.short)
		}
		if v.args != "" && len(v.complete) == 0 {
			t.Errorf("%s: its arguments are not completed", v.name)
		}
	}
}
