package main

import (
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestServiceManagerIsTold: READY=1 comes when the tree is there, of a mount in
// the foreground, as a service of type notify is run.
func TestServiceManagerIsTold(t *testing.T) {
	t.Parallel()
	needsMount(t)
	dir := t.TempDir()
	noMounts(t, dir)
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	mnt := filepath.Join(dir, "mnt")
	cmd := exec.Command("sh", "-c", `mkdir "$2" && exec "$0" mount -f --create --root "$1/store" --runroot "$1/run" "$2"`, program(t), dir, mnt)
	cmd.Env = append(cmd.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	go func() {
		buf := make([]byte, 100)
		n, _ := socket.Read(buf) // an error is nothing said
		said <- string(buf[:n])
	}()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case text := <-said:
		if text != "READY=1" {
			t.Errorf("the service manager is told %q", text)
		}
		if out, err := exec.Command("cat", filepath.Join(mnt, "version")).CombinedOutput(); err != nil {
			t.Errorf("what is ready cannot be read: %v: %s", err, out)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("the end: %v", err)
		}
	case err := <-ended:
		t.Errorf("it ended without a word: %v", err)
	}
	if err := socket.Close(); err != nil {
		t.Error(err)
	}
}
