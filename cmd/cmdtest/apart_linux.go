package cmdtest

import "github.com/plyfs/plyfs/internal/fusetest"

// apart gives the tests mounts of their own.
func apart() error { return fusetest.Apart() }
