package fusetest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// What Main and NoLeaks look for is found when it is there.
func TestLeaksAreFound(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	before := take()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	go func() { <-stop }()
	p, err := os.StartProcess("/bin/sleep", []string{"sleep", "100"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	left := strings.Join(before.left(), "\n")
	for _, want := range []string{"mount tmpfs at " + dir, "descriptor ", "process ", "goroutines more"} {
		if !strings.Contains(left, want) {
			t.Errorf("%q is not among what was left:\n%s", want, left)
		}
	}
	close(stop)
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Error(err)
	}
	if left := before.wait(); len(left) > 0 {
		t.Errorf("still there: %v", left)
	}
}

// TestApartChild is TestApart's.
func TestApartChild(t *testing.T) {
	if !IsChild() {
		t.Skip("run by TestApart")
	}
	if err := Apart(); err != nil { // starts this test again
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	Must(t, `grep -qs " $1 " /proc/self/mountinfo; ! grep -qs " $1 " /proc/$2/mountinfo; echo apart >&2`, dir, strconv.Itoa(os.Getppid()))
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
}

// Who made the namespace that a test binary runs in sees none of its mounts.
func TestApart(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes mount namespaces")
	}
	if r := Child(t, "TestApartChild", apartEnv+"="); r.Status != 0 || !strings.Contains(r.Out, "PASS: TestApartChild") {
		t.Errorf("status %d: %s%s", r.Status, r.Out, r.Err)
	}
}

func TestAsUser(t *testing.T) {
	r := AsUser(t, User{}, `id -u; id -G; cat /etc/subuid; stat -c %a /dev/fuse; test "$PWD" = "$HOME"; touch "$HOME/x"; echo "$1"; grep CapEff /proc/self/status; exit 3`, "argument")
	want := "1000\n1000\nplyuser:100000:65536\n666\nargument\nCapEff:\t0000000000000000\n"
	if r.Out != want || r.Status != 3 {
		t.Errorf("got %d %q %q, want 3 %q", r.Status, r.Out, r.Err, want)
	}
	if r := AsUser(t, User{NoDevice: true, NoSubIDs: true, NoHelper: true}, `test ! -e /dev/fuse && test ! -s /etc/subuid && test ! -x "$(command -v fusermount3)" && echo gone > /dev/null`); r.Status != 0 {
		t.Errorf("what was to be hidden is there: %+v", r)
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Errorf("the machine's own device: %v", err)
	}
	if m, _ := filepath.Glob("/tmp/*/ns/fuse"); len(m) > 0 {
		t.Errorf("left: %v", m)
	}
}
