//go:build !windows

package durable

import (
	"errors"
	"fmt"
	"os"
)

// SyncDir makes the entries of a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	err = d.Sync()
	if err != nil {
		err = fmt.Errorf("sync directory: %w", err)
	}
	return errors.Join(err, d.Close())
}
