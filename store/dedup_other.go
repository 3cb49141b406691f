//go:build !linux

package store

import (
	"os"
	"syscall"
)

// shareRange is not to be had on this system.
func shareRange(_, _ *os.File, _, _ int64) (int64, error) { return 0, syscall.ENOTSUP }
