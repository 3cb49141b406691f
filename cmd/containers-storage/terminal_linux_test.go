package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// terminal is a pseudo-terminal: what a program that has user as its standard
// error shows is read from screen.
func terminal(t *testing.T) (screen, user *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs pseudo-terminals: %v", err)
	}
	screen = os.NewFile(uintptr(fd), "screen")
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		user, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(errors.Join(err, screen.Close()))
	}
	t.Cleanup(func() { _ = errors.Join(screen.Close(), user.Close()) }) // closed already, most often
	return screen, user
}

// TestProgress: slow work shows on a terminal how far it is, and wipes it; in
// a file there is nothing.
func TestProgress(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes a store")
	}
	dir := t.TempDir()
	t.Cleanup(func() { _ = unmountBelow(dir) })
	if out, err := exec.Command("tar", "-cf", filepath.Join(dir, "a.tar"), "-C", "/etc", "passwd").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	run := func(stderr *os.File, args ...string) {
		cmd := exec.Command(ours, append([]string{"-g", filepath.Join(dir, "root"), "-R", filepath.Join(dir, "run"), "-s", "vfs"}, args...)...)
		cmd.Env = append(os.Environ(), "TERM=xterm", "CONTAINERS_STORAGE_CONF=/dev/null")
		cmd.Stderr = stderr
		if out, err := cmd.Output(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"importing ", []string{"import-layer", "-i", "one", "-f", filepath.Join(dir, "a.tar")}},
		{"writing one: ", []string{"diff", "one"}},
		{"checking layer one", []string{"check"}},
		{"applying ", []string{"applydiff", "-f", filepath.Join(dir, "a.tar"), "one"}},
	} {
		screen, user := terminal(t)
		run(user, c.args...)
		if err := user.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(screen) // EIO ends it
		if err != nil && !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		if got := string(b); !strings.Contains(got, c.want) || !strings.HasSuffix(got, "\r\x1b[K") {
			t.Errorf("%v shows %q, want %q in it and the line wiped", c.args, got, c.want)
		}
	}
	file, err := os.Create(filepath.Join(dir, "errors"))
	if err != nil {
		t.Fatal(err)
	}
	run(file, "diff", "one")
	if fi, err := file.Stat(); err != nil || fi.Size() != 0 {
		t.Errorf("into a file it writes %v %v", fi, err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestUser: an ordinary user's store, with files of subordinate IDs, is read
// and written without more ado; mounts are where they last.
func TestUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be an ordinary user of its making")
	}
	dir := t.TempDir()
	tarball := filepath.Join(dir, "a.tar")
	script := `mkdir d && echo x >d/f && chown 6:7 d/f && tar --numeric-owner -cf a.tar -C d f && chmod 644 a.tar`
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for d := dir; d != filepath.Dir(os.TempDir()) && d != "/"; d = filepath.Dir(d) {
		if fi, err := os.Stat(d); err == nil && fi.Mode()&0o001 == 0 {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	u := fusetest.User{Env: []string{"PATH=" + filepath.Dir(ours) + ":" + os.Getenv("PATH"), "LC_ALL=C", "TARBALL=" + tarball}}
	r := fusetest.AsUser(t, u, `
containers-storage import-layer -i one -f $TARBALL
containers-storage diff one | cmp - $TARBALL && echo same
stat -c '%u %g' .local/share/containers/storage/overlay/one/diff/f
containers-storage create-layer -i two one
containers-storage copy --chown 3:4 $TARBALL two:/copied && echo copied
stat -c '%u %g' .local/share/containers/storage/overlay/two/diff/copied
containers-storage mount two; echo "refused $?"
containers-storage unshare -- sh -c 'cat "$(containers-storage mount two)/f" && containers-storage unmount two'
containers-storage -U check -q && echo sound
containers-storage unshare -- sh -c 'exit 3'; echo "status $?"
cd /; containers-storage layers -q
`)
	want := "one\nsame\n100005 100006\ntwo\ncopied\n100002 100003\nrefused 1\nx\ntwo mountpoint unmounted\nsound\nstatus 3\none\ntwo\n"
	if r.Out != want {
		t.Errorf("printed %q, want %q; errors:\n%s", r.Out, want, r.Err)
	}
	if !strings.Contains(r.Err, "run it, and what uses the mount, in containers-storage unshare") {
		t.Errorf("errors:\n%s", r.Err)
	}
}
