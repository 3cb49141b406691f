package overlay_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The suite passes in a user namespace too, where the marks are user.overlay.*
// and the mounts have userxattr.
func TestKernelInUserNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to map IDs into a user namespace")
	}
	if testing.Short() {
		t.Skip("runs the whole suite again: not with -short")
	}
	t.Parallel()
	const host, size = 100000, 65536
	base := t.TempDir()
	for _, err := range []error{
		os.Chmod(filepath.Dir(base), 0o755), os.Chown(base, host, host), copyProgram(filepath.Join(base, "suite")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: host, Size: size}}
	cmd := exec.Command(filepath.Join(base, "suite"), "-test.v", "-test.run", "^TestKernel$")
	cmd.Dir = base
	cmd.Env = append(os.Environ(), "TMPDIR="+base)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{Uid: 0, Gid: 0},
	}
	out, err := cmd.CombinedOutput()
	if err != nil && (os.IsPermission(err) || strings.Contains(err.Error(), "no space left")) {
		t.Skip("this system makes no user namespaces: ", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := strings.Count(string(out), "--- PASS: TestKernel/"); got < 25 {
		t.Errorf("only %d cases ran:\n%s", got, out)
	}
}

func copyProgram(to string) error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer func() { _ = self.Close() }()
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, self); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
