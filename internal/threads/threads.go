// Package threads says how many threads of a server may run at once.
package threads

import (
	"os"
	"runtime"
)

// spare is how many at least.
const spare = 8

// Spare lets at least eight threads run at once, unless the environment says how
// many (GOMAXPROCS). A server of a mount is in system calls most of the time,
// which hold their place among these: with none to spare the runtime's monitor is
// awake every 20 µs to take places away from those and give them to other threads,
// a tenth of all processor time. The change stops all threads for a moment: make
// it when the mount is there.
func Spare() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), spare))
	}
}
