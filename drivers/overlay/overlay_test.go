package overlay_test

import (
	"os"
	"testing"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/drivertest"
	"github.com/plyfs/plyfs/drivers/overlay"
)

const fuseOverlayfs = "/usr/bin/fuse-overlayfs"

func kernel() drivertest.Maker { return drivertest.Maker{New: overlay.New, Union: true} }

func program(tb testing.TB) drivertest.Maker {
	tb.Helper()
	if _, err := os.Stat(fuseOverlayfs); err != nil {
		tb.Skip("needs fuse-overlayfs: ", err)
	}
	m := kernel()
	m.NoColon = true // https://github.com/containers/fuse-overlayfs/issues/440
	m.Options = []drivers.Option{{Key: "mount_program", Value: fuseOverlayfs}}
	return m
}

func TestKernel(t *testing.T)  { drivertest.Run(t, kernel()) }
func TestProgram(t *testing.T) { drivertest.Run(t, program(t)) }

func BenchmarkKernel(b *testing.B)  { drivertest.Bench(b, kernel()) }
func BenchmarkProgram(b *testing.B) { drivertest.Bench(b, program(b)) }
