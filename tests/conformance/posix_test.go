package conformance

import (
	"maps"
	"slices"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// posixCases are go-fuse's own suite.
func posixCases() (cs []c) {
	for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
		if !notPosix[name] {
			cs = append(cs, c{name: "posix-" + name, run: func(e *env) { posixtest.All[name](e.T, e.root) }})
		}
	}
	return cs
}

// notPosix are cases that a plain directory fails: they are about go-fuse's own
// servers.
var notPosix = map[string]bool{"FcntlFlockLocksFile": true, "OpenSymlinkRace": true}
