//go:build !docs

package manual

import "github.com/spf13/cobra"

// Add does nothing in a build without the tag docs.
func Add(*cobra.Command, string) {}
