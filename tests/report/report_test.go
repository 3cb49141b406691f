package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// suite is a module whose tests pass, fail, skip, and leave a process and a file.
const suite = `package suite

import (
	"os"
	"os/exec"
	"testing"
)

func TestGood(t *testing.T) { t.Run("sub", func(t *testing.T) {}) }
func TestBad(t *testing.T) { t.Run("sub", func(t *testing.T) { t.Error("seen 1, want 2") }) }
func TestSkipped(t *testing.T) { t.Skip("needs a moon") }
func TestLeaves(t *testing.T) {
	if err := os.WriteFile(os.TempDir()+"/crumb", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("setsid", "-f", "sleep", "71.5")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
}
`

func runSuite(t *testing.T, source string, args ...string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	tool := filepath.Join(dir, "report")
	if out, err := exec.Command("go", "build", "-o", tool, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for name, text := range map[string]string{"go.mod": "module suite\n\ngo 1.26\n", "suite_test.go": source} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(tool, append([]string{"--", "go", "test"}, args...)...)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func TestReportOfFailures(t *testing.T) {
	t.Parallel()
	out, err := runSuite(t, suite, "./...")
	if err == nil {
		t.Error("a failing test and a left process, and yet success")
	}
	for _, want := range []string{
		"2 passed, 1 failed, 1 skipped", "seen 1, want 2", "failed: suite TestBad/sub",
		"skipped: suite TestSkipped: needs a moon", "LEFT BEHIND", "sleep 71.5", "/crumb",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
}

func TestReportLeftoversFail(t *testing.T) {
	t.Parallel()
	out, err := runSuite(t, suite, "-run", "TestLeaves", "./...")
	if err == nil || !strings.Contains(out, "1 passed, 0 failed, 0 skipped") {
		t.Errorf("err %v, output:\n%s", err, out)
	}
}

func TestReportOfSuccess(t *testing.T) {
	t.Parallel()
	out, err := runSuite(t, suite, "-run", "TestGood", "./...")
	if err != nil || !strings.Contains(out, "1 passed, 0 failed, 0 skipped") ||
		!strings.Contains(out, "no mount, process or file was left behind") {
		t.Errorf("err %v, output:\n%s", err, out)
	}
}

func TestReportOfCrash(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"does not compile": "package suite\nimport \"testing\"\nfunc TestX(t *testing.T) { undefined() }\n",
		"crashes":          "package suite\nimport \"testing\"\nfunc TestX(t *testing.T) { var m map[int]int; m[1] = 1 }\n",
	} {
		out, err := runSuite(t, body, "./...")
		if err == nil || strings.Contains(out, " 0 failed") {
			t.Errorf("%s: err %v, output:\n%s", name, err, out)
		}
	}
}
