package fusetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Loop makes a filesystem of megabytes MiB in a file below dir with mkfs (a program and its
// options), and mounts it there with the mount options given, if any, until
// the test's end. It returns the file and the mount point, and skips the test where
// mkfs is not installed or nothing can be mounted from a file.
func Loop(t testing.TB, dir string, megabytes int64, mkfs, options string) (image, at string) {
	t.Helper()
	words := strings.Fields(mkfs)
	if _, err := exec.LookPath(words[0]); err != nil {
		t.Skipf("%s is not installed: this test wants a filesystem of its kind", words[0])
	}
	image, at = filepath.Join(dir, "fs"), filepath.Join(dir, "at")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(megabytes << 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(words[0], append(words[1:], image)...).CombinedOutput(); err != nil {
		t.Skipf("%s: %v: %s", mkfs, err, out)
	}
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	o := strings.TrimSuffix("loop,"+options, ",")
	if out, err := exec.Command("mount", "-o", o, image, at).CombinedOutput(); err != nil {
		t.Skipf("what %s made cannot be mounted here with %s: %v: %s", mkfs, o, err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return image, at
}

// UserModeLinux runs the tests of this test binary that fit the pattern in a
// kernel that is a program, as root of it, and returns what they printed with
// -test.v and a last line "status N". That kernel has project quotas and the
// overlay, and the machine's files. It skips the test where there is none.
func UserModeLinux(t testing.TB, pattern string) string {
	t.Helper()
	uml, err := exec.LookPath("linux.uml")
	if err != nil {
		t.Skip("needs linux.uml (Debian's user-mode-linux)")
	}
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("busybox is not installed: it loads the modules of user-mode Linux")
	}
	if os.Geteuid() != 0 {
		t.Skip("is run by root: the kernel sees its files with this user's rights")
	}
	dir := t.TempDir()
	modules := filepath.Join(filepath.Dir(filepath.Dir(uml)), "lib", "uml", "modules")
	init := `#!/bin/sh
cd ` + dir + ` && mkdir t
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmp t; mount -t tmpfs run /run
PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=$PWD/t TMPDIR=$PWD/t; export PATH HOME TMPDIR
for m in drivers/block/loop fs/quota/quota_tree fs/quota/quota_v2 fs/overlayfs/overlay; do
	busybox insmod ` + modules + `/$(uname -r)/kernel/$m.ko >/dev/tty0 2>&1
done
./test -test.run '` + pattern + `' -test.v >/dev/tty0 2>&1
echo "status $?" >/dev/tty0
echo o > /proc/sysrq-trigger; sleep 60
`
	if err := os.WriteFile(filepath.Join(dir, "init"), []byte(init), 0o700); err != nil {
		t.Fatal(err)
	}
	// The race detector wants more address space than that kernel gives.
	binary := exec.Command("cp", os.Args[0], filepath.Join(dir, "test"))
	if raceDetected {
		binary = exec.Command("go", "test", "-c", "-o", filepath.Join(dir, "test"), ".")
	}
	if out, err := binary.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(uml, "mem=1G", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw", "quiet", "uml_dir="+dir, "init="+filepath.Join(dir, "init"), "con=null", "con0=null,fd:1")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	out, err := cmd.CombinedOutput()
	if !strings.Contains(string(out), "status ") {
		t.Fatalf("in user-mode Linux: %v\n%s", err, out)
	}
	return string(out)
}
