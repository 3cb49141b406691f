//go:build docs

package main

import (
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// extraCommands is the writer of manual pages, which ships with no binary:
// go run -tags docs ./cmd/containers-storage docs docs/man
func extraCommands(root *cobra.Command) []*cobra.Command {
	return []*cobra.Command{{
		Use: "docs DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			root.DisableAutoGenTag = true
			day := time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC) // pages change with the commands alone
			return doc.GenManTree(root, &doc.GenManHeader{Title: "CONTAINERS-STORAGE", Section: "1", Source: "plyfs", Manual: "plyfs", Date: &day}, args[0])
		},
	}}
}
