package main

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what the session in README.md really prints into it")

const readme = "../../README.md"

// session returns the text around README's session, and its commands; the
// word TOUR stands for the lines of scripts/tour.
func session(t *testing.T) (before, block, after string) {
	t.Helper()
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), "```console\n")
	block, after, ok2 := strings.Cut(rest, "```\n")
	if !ok || !ok2 {
		t.Fatal("README.md has no console block")
	}
	return before, block, after
}

// TestReadmeSession runs the session in README.md, and compares all it prints.
// The tour of make run is a part of it.
func TestReadmeSession(t *testing.T) {
	needsMount(t)
	before, block, after := session(t)
	tour, err := os.ReadFile("../../scripts/tour")
	if err != nil {
		t.Fatal(err)
	}
	commands := commandsOf(block)
	if *update {
		commands = updated(string(tour))
	}
	if !strings.Contains(strings.Join(commands, "\n")+"\n", "\n"+string(tour)) {
		t.Errorf("README.md does not show the tour of make run (scripts/tour): go test ./cmd/plyfs -run Readme -update")
	}
	dir := t.TempDir()
	noMounts(t, dir)
	var got strings.Builder
	for _, c := range commands {
		cmd := exec.Command("bash", "-c", c)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+filepath.Dir(program(t))+":"+os.Getenv("PATH"))
		out, _ := cmd.CombinedOutput() // a command that fails is part of the session
		got.WriteString("$ " + c + "\n" + string(out))
	}
	if *update {
		if err := os.WriteFile(readme, []byte(before+"```console\n"+got.String()+"```\n"+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(strings.Split(block, "\n"), strings.Split(got.String(), "\n")); d != "" {
		t.Errorf("README.md shows something else than what happens (- README, + really): %s", d)
	}
}

func commandsOf(block string) []string {
	var commands []string
	for line := range strings.Lines(block) {
		if c, ok := strings.CutPrefix(line, "$ "); ok {
			commands = append(commands, strings.TrimSuffix(c, "\n"))
		}
	}
	return commands
}

// updated is the session around the tour.
func updated(tour string) []string {
	start := []string{"mkdir mnt", "plyfs demo import --root store --runroot run", "plyfs mount --root store --runroot run mnt"}
	return append(append(start, strings.Split(strings.TrimSuffix(tour, "\n"), "\n")...), "plyfs umount mnt")
}
