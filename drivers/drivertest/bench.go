//go:build linux

package drivertest

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/plyfs/plyfs/drivers"
)

// Bench measures the life of a layer on a base of a few files.
func Bench(b *testing.B, m Maker) {
	b.Run("CreatePublishRetire", func(b *testing.B) {
		s := benchStore(b, m)
		for i := 0; b.Loop(); i++ {
			id := fmt.Sprintf("l%d", i)
			in, out := s.Stage(), s.Stage()
			_, err := s.Driver.Create(context.Background(), in, drivers.LayerSpec{ID: id, Parent: "base"})
			must(b, err)
			must(b, s.Driver.Publish(in, id))
			must(b, s.Driver.Retire(out, id))
		}
	})
	b.Run("Create", func(b *testing.B) {
		s := benchStore(b, m)
		for i := 0; b.Loop(); i++ {
			_, err := s.Driver.Create(context.Background(), s.Stage(), drivers.LayerSpec{ID: fmt.Sprintf("l%d", i), Parent: "base"})
			must(b, err)
		}
	})
	b.Run("MountUnmount", func(b *testing.B) {
		s := benchStore(b, m)
		s.Layer("top", "base", nil)
		for b.Loop() {
			_, unmount := s.Mount("top", drivers.MountOptions{})
			unmount()
		}
	})
	b.Run("New", func(b *testing.B) {
		s := benchStore(b, m)
		for b.Loop() {
			_, err := m.New(s.Config)
			must(b, err)
		}
	})
	b.Run("Dirs100", func(b *testing.B) {
		s := benchStore(b, m)
		parent := "base"
		for i := range 100 {
			id := fmt.Sprintf("d%d", i)
			s.Layer(id, parent, nil)
			parent = id
		}
		for b.Loop() {
			_, err := s.Driver.Dirs(parent)
			must(b, err)
		}
	})
}

func benchStore(b *testing.B, m Maker) *Store {
	b.Helper()
	s := Open(b, m, "root")
	s.Layer("base", "", func(p drivers.Private) {
		for i := range 10 {
			write(b, filepath.Join(p.Dir, fmt.Sprintf("f%d", i)), "content")
		}
	})
	return s
}
