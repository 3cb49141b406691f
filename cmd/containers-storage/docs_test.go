package main

import (
	"strings"
	"testing"

	"github.com/plyfs/plyfs/cmd/cmdtest"
)

// TestManualPagesAreCurrent: docs/man holds what the commands say now, a page
// for each verb.
func TestManualPagesAreCurrent(t *testing.T) {
	t.Parallel()
	pages := cmdtest.ManualPages(t, program)
	for _, v := range (&app{}).verbs() {
		if !pages[program+"-"+v.name+".1"] {
			t.Errorf("%s has no page", v.name)
		}
	}
}

// TestEveryVerbIsExplained: each verb has an example, words beside its name,
// and arguments that are completed if it takes any.
func TestEveryVerbIsExplained(t *testing.T) {
	t.Parallel()
	a := &app{}
	for _, v := range a.verbs() {
		if !strings.Contains(v.example, program+" ") || !strings.Contains(v.example, v.name) {
			t.Errorf("%s has no example of itself", v.name)
		}
		if v.short == "" || strings.HasSuffix(v.short, ".") {
			t.Errorf("%s: the short text is %q", v.name, v.short)
		}
		if v.args != "" && len(v.complete) == 0 {
			t.Errorf("%s: its arguments are not completed", v.name)
		}
	}
}
