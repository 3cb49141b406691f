package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInstall: `make install` puts programs, manual pages and completions below
// a root of our own, each of which its reader takes.
func TestInstall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bin, root := dir+"/bin", dir+"/root"
	build := exec.Command("go", "build", "-o", bin+"/", "./cmd/...")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	output(t, build)
	install := func(extra ...string) string {
		c := exec.Command("make", append([]string{"--no-print-directory", "-o", "build-binary", "install", "BIN=" + bin, "DESTDIR=" + root}, extra...)...)
		c.Dir = "../.."
		return output(t, c)
	}
	if out, want := install(), "installed into "+root+"/usr/local; helpers for mount(8) in "+root+"/sbin\n"; out != want {
		t.Errorf("printed %q, want %q", out, want)
	}
	local := root + "/usr/local/"
	for _, program := range []string{"plyfs", "fuse-overlay", "containers-storage"} {
		if out := output(t, exec.Command(local+"bin/"+program, "--help")); !strings.Contains(out, program) {
			t.Errorf("%s --help: %q", program, out)
		}
		if _, err := os.Stat(local + "share/man/man1/" + program + ".1"); err != nil {
			t.Error(err)
		}
		for shell, script := range map[string]string{
			"bash": "bash-completion/completions/" + program,
			"zsh":  "zsh/site-functions/_" + program,
			"fish": "fish/vendor_completions.d/" + program + ".fish",
		} {
			if path, err := exec.LookPath(shell); err != nil {
				t.Skipf("%s is not installed: its completions cannot be read", shell)
			} else {
				output(t, exec.Command(path, "-n", local+"share/"+script))
			}
		}
	}
	for _, program := range []string{"plyfs", "fuse-overlay"} {
		if out := output(t, exec.Command(local+"bin/"+program, "--version")); !strings.HasPrefix(out, program) {
			t.Errorf("%s --version: %q", program, out)
		}
		if to, err := os.Readlink(root + "/sbin/mount.fuse." + program); err != nil || to != "/usr/local/bin/"+program {
			t.Errorf("helper of %s: %q, %v", program, to, err)
		}
	}
	pages, _ := filepath.Glob("../../docs/man/*.1")
	if got, _ := filepath.Glob(local + "share/man/man1/*.1"); len(got) != len(pages) || len(got) == 0 {
		t.Errorf("%d manual pages of %d", len(got), len(pages))
	}
	fish := exec.Command("fish", "--no-config", "-c", `source $argv[1]; complete -C "plyfs um"; source $argv[2]; complete -C "containers-storage delete-co"`,
		local+"share/fish/vendor_completions.d/plyfs.fish", local+"share/fish/vendor_completions.d/containers-storage.fish")
	fish.Env = append(os.Environ(), "PATH="+local+"bin:"+os.Getenv("PATH"), "HOME="+dir)
	if out := output(t, fish); !strings.Contains(out, "umount\t") || !strings.Contains(out, "delete-container\t") {
		t.Errorf("fish completes %q", out)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := install("DESTDIR="+dir+"/other", "SBINDIR=/../file/sbin"); !strings.Contains(out, "without the helper for mount -t fuse.plyfs: ") {
		t.Errorf("with an SBINDIR that cannot be: %q", out)
	}
}

// output runs a command that must succeed, and returns its output.
func output(t *testing.T, c *exec.Cmd) string {
	t.Helper()
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", c.Args, err, out)
	}
	return string(out)
}
