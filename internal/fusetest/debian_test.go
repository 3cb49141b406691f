package fusetest

import (
	"os"
	"path/filepath"
	"testing"
)

// TestAptSource: all forms of sources.list(5).
func TestAptSource(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, text, mirror, suite string }{
		"deb822": {
			"sources.list.d/x.sources", "Types: deb-src\nURIs: http://src/\nSuites: a\nComponents: main\n\n# remark: one\nTypes: deb deb-src\nURIs: http://one/debian http://two/\nSuites: stable stable-updates\nComponents: main contrib\nSigned-By: /x\n",
			"http://one/debian", "stable",
		},
		"lines":       {"sources.list", "# deb http://no/ no main\ndeb-src http://src/ a main\ndeb http://other/ b contrib\ndeb [arch=amd64 signed-by=/k] http://one/ stable main\n", "http://one/", "stable"},
		"more lines":  {"sources.list.d/y.list", "deb http://one/ stable contrib main\n", "http://one/", "stable"},
		"none":        {"sources.list.d/z.list", "deb http://one/ stable contrib\n", "", ""},
		"not a file":  {"sources.list.d/z", "deb http://one/ stable main\n", "", ""},
		"incomplete":  {"sources.list.d/a.sources", "Types: deb\nComponents: main\nSuites: stable\n", "", ""},
		"empty value": {"sources.list.d/a.sources", "Types:\nURIs:\n\n\n", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, "sources.list.d"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if mirror, suite := aptSource(t, dir); mirror != c.mirror || suite != c.suite {
				t.Errorf("%q %q, want %q %q", mirror, suite, c.mirror, c.suite)
			}
		})
	}
}
