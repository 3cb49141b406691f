package doctor_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/doctor"
)

// machine is one whose files are made up.
func machine(t *testing.T, files map[string]string) doctor.Machine {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return doctor.Machine{Root: root, UID: 4242, GraphRoot: filepath.Join(root, "no/such/store"),
		LookPath: func(name string) (string, error) {
			path := filepath.Join(root, "bin", name)
			if _, err := os.Stat(path); err != nil {
				return "", exec.ErrNotFound
			}
			return path, nil
		}}
}

func grades(list []doctor.Finding) map[string]string {
	m := map[string]string{}
	for _, f := range list {
		m[f.What] += f.Grade.String() + " " + f.Text + "\n"
	}
	return m
}

func TestNothingThere(t *testing.T) {
	t.Parallel()
	got := grades(machine(t, nil).Examine())
	for what, want := range map[string]string{
		"device": "fail there is no ", "fusermount3": "fail not in the path: install", "user namespaces": "fail the kernel has none",
		"subordinate IDs": "warn ", "kernel overlay": "warn ", "store": "", "mounts": "warn not known",
	} {
		if !strings.HasPrefix(got[what], want) || got[what] == "" {
			t.Errorf("%s: %q, want %q…", what, got[what], want)
		}
	}
}

func TestAllThere(t *testing.T) {
	t.Parallel()
	m := machine(t, map[string]string{
		"dev/fuse": "", "bin/fusermount3": "", "bin/newuidmap": "", "bin/newgidmap": "",
		"proc/sys/user/max_user_namespaces": "15000\n", "proc/sys/kernel/unprivileged_userns_clone": "1\n",
		"etc/subuid": "root:1:1\n4242:100000:65536\n", "etc/subgid": "4242:100000:65536\n",
		"proc/filesystems": "nodev\tproc\nnodev\toverlay\n", "proc/self/mountinfo": "22 27 0:21 / /proc rw,relatime - proc proc rw\n",
	})
	if err := os.Chmod(m.Root+"/bin/fusermount3", 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	for _, f := range m.Examine() {
		if f.Grade != doctor.OK && f.What != "extended attributes" {
			t.Errorf("%s %s: %s", f.Grade, f.What, f.Text)
		}
	}
	for file, want := range map[string][2]string{
		"proc/sys/user/max_user_namespaces=0\n":         {"user namespaces", "fail none may be made"},
		"proc/sys/kernel/unprivileged_userns_clone=0\n": {"user namespaces", "fail only root"},
		"etc/subgid=root:1:1\n":                         {"subordinate IDs", "warn "},
		"proc/filesystems=nodev\tproc\n":                {"kernel overlay", "warn the kernel has none"},
	} {
		name, text, _ := strings.Cut(file, "=")
		old, err := os.ReadFile(filepath.Join(m.Root, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(m.Root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := grades(m.Examine())[want[0]]; !strings.HasPrefix(got, want[1]) {
			t.Errorf("with %q: %q, want %q…", file, got, want[1])
		}
		if err := os.WriteFile(filepath.Join(m.Root, name), old, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
