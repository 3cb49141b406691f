//go:build docs

package manual

import (
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// Add adds the hidden command `docs DIR` to a program's root command; title is
// that of the pages' heads.
func Add(root *cobra.Command, title string) {
	root.AddCommand(&cobra.Command{
		Use: "docs DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			root.DisableAutoGenTag = true
			return doc.GenManTree(root, Header(title), args[0])
		},
	})
}

// Header is the head of a page: it changes with the commands alone.
func Header(title string) *doc.GenManHeader {
	day := time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
	return &doc.GenManHeader{Title: title, Section: "1", Source: "plyfs", Manual: "plyfs", Date: &day}
}
