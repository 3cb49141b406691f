package fusetest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Debian returns a tar of a small Debian (debootstrap's variant minbase), from
// the mirror and of the suite that this machine's apt takes its packages from.
// It is made once, which takes minutes and a network, and kept in the folder
// for temporary files, for the next run too. The test is skipped where it cannot be made.
func Debian(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run debootstrap")
	}
	keep := os.Getenv(keepEnv)
	if keep == "" {
		keep = os.TempDir()
	}
	file := filepath.Join(keep, "plyfs-debootstrap.tar")
	var st unix.Stat_t // nobody else may have put it there
	if err := unix.Lstat(file, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Uid == 0 && st.Size > 0 {
		return file
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		t.Skipf("debootstrap is not installed: %v", err)
	}
	mirror, suite := aptSource(t, "/etc/apt")
	if mirror == "" {
		t.Skip("/etc/apt names no mirror of Debian's main packages")
	}
	// Others may be making it at the same time: whichever comes last stays.
	Must(t, `d=$(mktemp -d "$1.XXXXXX"); trap 'rm -rf "$d"' EXIT
debootstrap --variant=minbase "$2" "$d/t" "$3" >"$d/log" 2>&1 || { tail -n 20 "$d/log" >&2; exit 1; }
tar -cf "$d/tar" --numeric-owner -C "$d/t" .
chmod 644 "$d/tar"
mv "$d/tar" "$1"`, file, suite, mirror)
	return file
}

// aptSource reads the first source of Debian's component main from apt's
// configuration in dir (sources.list(5)): deb822 files, then lists of lines.
// Both values are empty when there is none.
func aptSource(t testing.TB, dir string) (mirror, suite string) {
	t.Helper()
	for _, pattern := range []string{"sources.list.d/*.sources", "sources.list", "sources.list.d/*.list"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			parse := parseList
			if strings.HasSuffix(name, ".sources") {
				parse = parseSources
			}
			if mirror, suite = parse(string(b)); mirror != "" {
				return mirror, suite
			}
		}
	}
	return "", ""
}

// parseSources reads deb822 stanzas.
func parseSources(text string) (mirror, suite string) {
	for stanza := range strings.SplitSeq(text, "\n\n") {
		field := map[string][]string{}
		for line := range strings.Lines(stanza) {
			if k, v, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(k, "#") {
				field[strings.ToLower(k)] = strings.Fields(v)
			}
		}
		if isMain(field["types"], field["components"]) && len(field["uris"]) > 0 && len(field["suites"]) > 0 {
			return field["uris"][0], field["suites"][0]
		}
	}
	return "", ""
}

// parseList reads lines `deb [options] URI suite component…`.
func parseList(text string) (mirror, suite string) {
	for line := range strings.Lines(text) {
		if a, rest, ok := strings.Cut(line, "["); ok {
			_, b, _ := strings.Cut(rest, "]")
			line = a + b
		}
		if f := strings.Fields(line); len(f) > 3 && isMain(f[:1], f[3:]) {
			return f[1], f[2]
		}
	}
	return "", ""
}

func isMain(types, components []string) bool {
	return slices.Contains(types, "deb") && slices.Contains(components, "main")
}
