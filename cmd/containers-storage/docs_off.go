//go:build !docs

package main

import "github.com/spf13/cobra"

// extraCommands are those of a build with the tag docs.
func extraCommands(*cobra.Command) []*cobra.Command { return nil }
