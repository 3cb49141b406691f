package conformance

import (
	"maps"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// TestPosix runs go-fuse's own suite in every world of root's.
func TestPosix(t *testing.T) {
	need(t)
	for _, w := range rootWorlds(t) {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
				if notPosix[name] {
					continue
				}
				t.Run(name, func(t *testing.T) {
					if why := posixKnown[w.name+"/"+name]; why != "" {
						t.Skipf("known to fail here: %s", why)
					}
					e := newEnv(t, w)
					t.Cleanup(e.unmount)
					e.mount()
					posixtest.All[name](t, e.root)
				})
			}
		})
	}
}

// posixKnown are the cases that the others fail, by world and name.
var posixKnown = map[string]string{peerName + "-1/FstatDeleted": "1 link", peerName + "-9/FstatDeleted": "1 link"}

// notPosix are cases that a plain directory fails: they are about go-fuse's own
// servers.
var notPosix = map[string]bool{"FcntlFlockLocksFile": true, "OpenSymlinkRace": true}
