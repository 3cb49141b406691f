package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/overlay"
	"github.com/plyfs/plyfs/drivers/vfs"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/store"
)

// libraryCalls is how often each call of the library is measured; slow ones no
// longer than libraryTime.
const (
	libraryCalls = 201
	libraryTime  = 4 * time.Second
)

// library measures what a program asks that has the store open, as the server of
// the control tree does: then the start of a process does not decide.
func (s *storage) library() (err error) {
	ctx := context.Background()
	o := store.Options{
		GraphRoot: s.dir + "/g", RunRoot: s.dir + "/r", DriverName: "overlay",
		NewDriver: func(c drivers.Config) (drivers.Driver, error) { return overlay.New(c) },
	}
	if s.driver == "vfs" {
		o.DriverName, o.NewDriver = "vfs", func(c drivers.Config) (drivers.Driver, error) { return vfs.New(c) }
	}
	for _, opt := range s.options {
		key, value, _ := strings.Cut(strings.TrimPrefix(opt, o.DriverName+"."), "=")
		o.DriverOptions = append(o.DriverOptions, drivers.Option{Key: key, Value: value})
	}
	st, err := store.Open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	for _, c := range []struct {
		name string
		call func() error
	}{
		{"changes", func() error {
			return st.Changes(ctx, "", "top", func(layertar.Change) error { return nil })
		}},
		{"diffsize", func() error {
			_, err := st.DiffSize(ctx, "", "top")
			return err
		}},
		{"diff", func() (err error) {
			src, err := st.DiffTar(ctx, "top")
			if err != nil {
				return err
			}
			_, err = src.Copy(ctx, io.Discard)
			return errors.Join(err, src.Close())
		}},
	} {
		var took []time.Duration
		for begin := time.Now(); len(took) < libraryCalls && time.Since(begin) < libraryTime; {
			start := time.Now()
			if err := c.call(); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		fmt.Printf("  %-28s %9.2f ms (median of %d)\n", "ours, open store: "+c.name, took[len(took)/2].Seconds()*1e3, len(took))
	}
	return nil
}
