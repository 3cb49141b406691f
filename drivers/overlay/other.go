//go:build !linux

package overlay

import (
	"runtime"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
)

// MaxLowers is the deepest chain of parents that a layer may have.
const MaxLowers = 500

// New is ErrNotSupported: only Linux has the overlay filesystem.
func New(drivers.Config) (drivers.Driver, error) {
	return nil, errno.New(errno.ErrNotSupported, "overlay: not supported on this system (%s), which has no overlay filesystem: use the driver vfs", runtime.GOOS)
}
