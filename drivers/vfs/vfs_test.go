package vfs_test

import (
	"testing"

	"github.com/plyfs/plyfs/drivers/drivertest"
	"github.com/plyfs/plyfs/drivers/vfs"
)

func TestSuite(t *testing.T) { drivertest.Run(t, drivertest.Maker{New: vfs.New}) }

func BenchmarkSuite(b *testing.B) { drivertest.Bench(b, drivertest.Maker{New: vfs.New}) }
