package store_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// failpoints are the names of the steps in the source, at which a test can
// have a process killed, with the file that each is in.
func failpoints(t *testing.T) map[string]string {
	t.Helper()
	call := regexp.MustCompile(`\b(?:s|st\.s|w\.s|r\.s|e)\.fail\((fmt\.Sprintf\()?"([a-z]+:[0-9]+[^"]*)"`)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		for _, m := range call.FindAllStringSubmatch(read(t, f), -1) {
			if m[1] == "" {
				names[m[2]] = f
				continue
			}
			for _, k := range []string{"layer", "image", "container"} {
				names[fmt.Sprintf(m[2], k)] = f
			}
		}
	}
	return names
}

// Every step of the source is one that some operation of the kill tests goes
// through, and is written down where the order of steps is.
func TestFailpoints(t *testing.T) {
	t.Parallel()
	names := failpoints(t)
	if len(names) < 30 {
		t.Fatalf("only %d steps were found: %v", len(names), names)
	}
	docs := read(t, "doc.go") + read(t, "doc_lifecycle.go")
	for name, file := range names {
		if !strings.Contains(docs, strings.Fields(name)[0]) {
			t.Errorf("step %q of %s is not written down in doc_lifecycle.go", name, file)
		}
	}
	passed := map[string]bool{}
	ops := append(slices.Sorted(maps.Keys(killOps(t))), "mount", "umount", "wipe")
	for _, op := range ops {
		e := newLifeEnv(t, "overlay")
		prepare(t, e)
		if _, err := spoil(e, op); err != nil {
			t.Fatal(err)
		}
		steps, _ := runChild(t, killJob{Driver: e.driver, Root: e.root, Run: e.run, Op: op})
		for _, s := range steps {
			passed[s] = true
		}
		e.unmountAll()
	}
	for name, file := range names {
		if !passed[name] {
			t.Errorf("no operation of the kill tests goes through step %q of %s", name, file)
		}
	}
	for name := range passed {
		if _, ok := names[name]; !ok {
			t.Errorf("step %q is not found in the source", name)
		}
	}
}
