package store_test

import (
	"context"
	"os/exec"
	"strconv"
	"testing"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/store"
)

// BenchmarkContainer makes, mounts, unmounts and deletes a container; beside
// it, the peer's create and delete.
func BenchmarkContainer(b *testing.B) {
	for driver := range constructors() {
		e := newLifeEnv(b, driver)
		s := e.open()
		ctx := context.Background()
		importLayer(b, s, store.LayerSpec{ID: "base"}, makeTar(b, entry{name: "f", text: "f"}))
		get(b, s.CreateMinimalImage, ctx, store.ImageSpec{ID: "img", Layer: "base"})
		b.Run(driver+"/plyfs", func(b *testing.B) {
			for b.Loop() {
				c := get(b, s.CreateContainer, ctx, store.ContainerSpec{Image: "img"})
				if err := s.DeleteContainer(ctx, c.ID); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(driver+"/plyfs-mount", func(b *testing.B) {
			c := get(b, s.CreateContainer, ctx, store.ContainerSpec{Image: "img"})
			for b.Loop() {
				if _, err := s.Mount(ctx, c.ID, drivers.MountOptions{}); err != nil {
					b.Fatal(err)
				}
				if _, err := s.Unmount(ctx, c.ID, false); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(driver+"/containers-storage", func(b *testing.B) {
			if _, err := exec.LookPath("containers-storage"); err != nil {
				b.Skip("containers-storage is not installed")
			}
			n := 0
			for b.Loop() {
				n++
				id := "c" + strconv.Itoa(n)
				e.peer("create-container", "--id", id, "img")
				e.peer("delete-container", id)
			}
		})
	}
}
