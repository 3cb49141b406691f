package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// syncTrace imports a layer of three files and two directories, and returns the system
// calls that make, rename and sync, one a line, in the order of their beginnings.
func syncTrace(t *testing.T, driver, policy string) []string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := unmountBelow(dir); err != nil {
			t.Error(err)
		}
	})
	trace := filepath.Join(dir, "trace")
	args := []string{
		"-f", "-y", "-s", "4096", "-o", trace, "-e", "trace=syncfs,fsync,fdatasync,sync,rename,renameat,renameat2,openat",
		ours, "-g", filepath.Join(dir, "root"), "-R", filepath.Join(dir, "run"), "-s", driver,
	}
	if policy != "" {
		args = append(args, "--storage-opt", "sync="+policy)
	}
	script := `mkdir -p tree/d tree/e && echo 1 >tree/d/f && echo 2 >tree/d/g && echo 3 >tree/e/f && tar -C tree -cf layer.tar d e && exec strace "$@" import-layer -i base -f layer.tar`
	cmd := exec.Command("sh", append([]string{"-ec", script, "sh"}, args...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		_, call, _ := strings.Cut(strings.TrimSpace(line), " ")
		call = strings.TrimSpace(call)
		if strings.HasPrefix(call, "<...") || strings.HasPrefix(call, "openat") && !strings.Contains(call, "O_CREAT") {
			continue
		}
		out = append(out, call)
	}
	return out
}

// inOrder finds patterns one after another, each in a later line, and returns
// the numbers of the lines.
func inOrder(lines []string, patterns ...string) (at []int, err error) {
	n := 0
	for _, p := range patterns {
		re := regexp.MustCompile(p)
		for n < len(lines) && !re.MatchString(lines[n]) {
			n++
		}
		if n == len(lines) {
			return nil, fmt.Errorf("no %q after line %v of\n%s", p, at, strings.Join(lines, "\n"))
		}
		at = append(at, n)
		n++
	}
	return at, nil
}

// TestSyncOrder: whatever a record says is durable before the record is. Of a
// layer that comes in, with sync=filesystem, the default, all content and the
// tar-split record are synced at once, and with sync=file one by one, before the
// record is there at all; then it is moved into the driver's place, which is
// synced before the record says that the layer is whole. With sync=none the
// content is the system's to write, and the rest as before.
func TestSyncOrder(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace")
	}
	if out, err := exec.Command("strace", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("strace cannot trace here: %v: %s", err, out)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes stores of both drivers")
	}
	for _, driver := range []string{"vfs", "overlay"} {
		home, content := "vfs/dir", `d/base`
		if driver == "overlay" {
			home, content = "overlay", `d/base/diff`
		}
		stage := `/plyfs/[0-9a-f]+/`
		save := []string{
			`^fsync\(.*/` + driver + `-layers/\.tmp-layers\.json`, `^rename.*/\.tmp-layers\.json.*layers/layers\.json"`, `^fsync\(.*/` + driver + `-layers>`,
		}
		publish := append(append([]string{}, save...),
			`^renameat2\(.*"plyfs/[0-9a-f]+/d/base", .*"`+home+`/base"`, `^fsync\(.*/`+home+`>`, `^rename.*`+stage+`s/tar-split\.gz.*base\.tar-split\.gz`)
		publish = append(publish, save...)
		file := func(name string) string { return `^fsync\(.*` + stage + content + name + `>` }
		made := `^openat\(.*` + stage + content + `/e>, "f"`
		split := `^fsync\(.*` + stage + `s/tar-split\.gz>`
		for policy, first := range map[string][]string{
			"":           {made, split, `^syncfs\(.*` + stage + content + `>`},
			"filesystem": {made, split, `^syncfs\(.*` + stage + content + `>`},
			"file":       {made, file("/e/f"), file("/e"), file(""), split},
			"none":       {made, split},
		} {
			lines := syncTrace(t, driver, policy)
			at, err := inOrder(lines, append(append([]string{}, first...), publish...)...)
			if err != nil {
				t.Errorf("%s, sync=%s: %v", driver, policy, err)
				continue
			}
			begun := at[len(first)] // the first save
			synced := map[string]int{}
			for i, l := range lines {
				if i > begun && strings.HasPrefix(l, "openat") && regexp.MustCompile(stage).MatchString(l) {
					t.Errorf("%s, sync=%s: made after the record was begun: %s", driver, policy, l)
				}
				switch {
				case strings.HasPrefix(l, "syncfs"), strings.HasPrefix(l, "sync("):
					synced["all"]++
				case regexp.MustCompile(file(".*")).MatchString(l):
					synced["one"]++
				}
			}
			want := map[string]int{"all": 1}
			switch policy {
			case "file":
				want = map[string]int{"one": 6}
			case "none":
				want = map[string]int{}
			}
			if fmt.Sprint(synced) != fmt.Sprint(want) {
				t.Errorf("%s, sync=%s: synced %v, want %v:\n%s", driver, policy, synced, want, strings.Join(lines, "\n"))
			}
		}
	}
}
