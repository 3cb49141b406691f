package detach

import (
	"fmt"
	"net"
	"os"
)

// Notify tells the service manager of $NOTIFY_SOCKET a state ("READY=1"), as
// sd_notify(3) describes. Without that variable it does nothing.
func Notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager of $NOTIFY_SOCKET: %w", err)
	}
	_, err = conn.Write([]byte(state))
	if cerr := conn.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("tell the service manager of $NOTIFY_SOCKET: %w", err)
	}
	return nil
}
