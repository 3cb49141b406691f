package detach_test

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/plyfs/plyfs/internal/detach"
)

// TestNotify is what a service manager does.
func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's socket
	t.Setenv("NOTIFY_SOCKET", path)
	if err := detach.Notify("READY=1"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := l.Read(b); err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("%q, %v", b[:n], err)
	}
	t.Setenv("NOTIFY_SOCKET", path+"x")
	if detach.Notify("READY=1") == nil {
		t.Error("a socket that is not there is no error")
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := detach.Notify("READY=1"); err != nil {
		t.Error(err)
	}
}
