// Package cmdtest is what the tests of the commands share: the real program,
// built once as it is installed, and its manual pages.
package cmdtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Main builds the program of the working directory, named name, into a
// temporary directory that ordinary users may read, tells built where it is,
// runs the tests, apart from the machine's mounts (apart), and returns
// the exit status.
func Main(m *testing.M, name string, built func(path string), ldflags string) int {
	if err := apart(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", name+"-cmd-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	err = os.Chmod(dir, 0o755)
	path := filepath.Join(dir, name)
	build := exec.Command("go", "build", "-ldflags", ldflags, "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, berr := build.CombinedOutput(); berr != nil {
		err = errors.Join(err, fmt.Errorf("build %s: %w\n%s", name, berr, out))
	}
	built(path)
	code := 1
	if err == nil {
		code = m.Run()
	}
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// ManualPages compares docs/man with what the commands of the program in the
// working directory say now, and returns the pages' names.
func ManualPages(t *testing.T, name string) map[string]bool {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("go", "run", "-tags", "docs", ".", "docs", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	fresh, err := filepath.Glob(dir + "/*.1")
	if err != nil || len(fresh) == 0 {
		t.Fatal("no pages were made", err)
	}
	pages := map[string]bool{}
	for _, page := range fresh {
		want, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		base := filepath.Base(page)
		pages[base] = true
		got, err := os.ReadFile(filepath.Join("../../docs/man", base))
		if err != nil || string(got) != string(want) {
			t.Errorf("docs/man/%s is not what the command says (%v): run make docs", base, err)
		}
	}
	there, err := filepath.Glob("../../docs/man/" + name + "*.1")
	if err != nil || len(there) != len(fresh) {
		t.Errorf("docs/man has %d pages, there are %d commands (%v)", len(there), len(fresh), err)
	}
	return pages
}
