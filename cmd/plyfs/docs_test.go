package main

import (
	"strings"
	"testing"

	"github.com/plyfs/plyfs/cmd/cmdtest"
)

// TestManualPagesAreCurrent: docs/man holds what the commands say now.
func TestManualPagesAreCurrent(t *testing.T) {
	t.Parallel()
	cmdtest.ManualPages(t, "plyfs")
}

// TestEveryVerbHasAnExample walks the command tree.
func TestEveryVerbHasAnExample(t *testing.T) {
	t.Parallel()
	root := (&app{}).root()
	for _, c := range append(root.Commands(), root) {
		if c.Name() == "help" || c.Name() == "completion" || c.HasSubCommands() && c != root {
			continue
		}
		if !strings.Contains(c.Example, "plyfs") {
			t.Errorf("plyfs %s has no example", c.Name())
		}
	}
}
