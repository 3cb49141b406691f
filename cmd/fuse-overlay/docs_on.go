//go:build docs

package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/plyfs/plyfs/cmd/manual"
)

// documents writes the manual page, which ships with no binary:
// go run -tags docs ./cmd/fuse-overlay docs docs/man
func documents(args []string) (done bool, err error) {
	if len(args) != 3 || args[1] != "docs" {
		return false, nil
	}
	f, err := os.Create(filepath.Join(args[2], "fuse-overlay.1"))
	if err != nil {
		return true, err
	}
	cmd := &cobra.Command{
		Use: usage, Short: short, Long: long, Example: examples,
		DisableFlagsInUseLine: true, DisableAutoGenTag: true, Run: func(*cobra.Command, []string) {},
	}
	if err := doc.GenMan(cmd, manual.Header("FUSE-OVERLAY"), f); err != nil {
		_ = f.Close()
		return true, err
	}
	return true, f.Close()
}
