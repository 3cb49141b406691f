//go:build !linux && !darwin

package mounts

import (
	"runtime"

	"github.com/plyfs/plyfs/internal/errno"
)

func exchange(string, string) error {
	return errno.New(errno.ErrNotSupported, "adding to a layer that has content is not supported on this system (%s), which cannot swap two directories in one step: make a new layer", runtime.GOOS)
}
