//go:build !linux

package main

import (
	"context"

	"github.com/plyfs/plyfs/internal/errno"
)

// runInside: there are user namespaces on Linux only, so that everything runs
// as the user that it was started by.
func (a *app) runInside(_ context.Context, v *verb) (inside bool, err error) {
	if a.unshare || v.name == "unshare" {
		return true, errno.New(errno.ErrNotSupported, "user namespaces are not supported on this system: run the command without")
	}
	return false, nil
}
