//go:build !linux

package drivers

import (
	"context"

	"github.com/plyfs/plyfs/internal/errno"
)

// UsageBelow is not supported here.
func UsageBelow(context.Context, string) (Usage, error) {
	return Usage{}, errno.New(errno.ErrNotSupported, "what files take is not counted on this system")
}
