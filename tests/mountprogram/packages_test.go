package mountprogram

import (
	"os"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestPackages installs packages in builds of podman and buildah, as root and as
// a user; the images equal those of the kernel's overlay, file by file, where
// they were built and where they are taken to.
func TestPackages(t *testing.T) {
	need(t)
	if os.Getenv("PLYFS_LONG") == "" {
		t.Skip("runs with PLYFS_LONG=1: it takes minutes, and a network")
	}
	base := fusetest.Debian(t)
	kernel := packages(t, false, "", base, "")
	for name, user := range map[string]bool{"root": false, "user": true} {
		t.Run(name, func(t *testing.T) {
			got := packages(t, user, ours(), base, "")
			compare(t, kernel.listing, got.listing)
			taken := packages(t, false, "", base, got.saved)
			compare(t, kernel.listing, taken.listing)
		})
	}
}

// built is what testdata/packages.sh leaves: the listing of all files of its
// images, and the name of a tar of them.
type built struct{ listing, saved string }

func packages(t *testing.T, user bool, program, base, load string) built {
	t.Helper()
	script, err := os.ReadFile("testdata/packages.sh")
	if err != nil {
		t.Fatal(err)
	}
	var r fusetest.Result
	uid := 0
	if user {
		uid = fusetest.UserID
	}
	dir := folder(t, uid)
	if user {
		r = fusetest.AsUser(t, fusetest.User{}, string(script), dir, program, base)
	} else {
		r = fusetest.Script(t, string(script), dir, program, base, load)
	}
	for line := range strings.Lines(r.Out) {
		if strings.HasPrefix(line, "FAIL ") {
			t.Error(strings.ReplaceAll(line, "~", "\n\t"))
		}
	}
	want := 10
	if load != "" {
		want = 7
	}
	if n := strings.Count("\n"+r.Out, "\nok "); n != want || r.Status != 0 {
		t.Fatalf("%d checks passed of %d, status %d\n%s%s", n, want, r.Status, r.Out, r.Err)
	}
	l := listing(t, dir)
	if n := strings.Count(l, "\n"); n < 20000 {
		t.Errorf("the listing has %d lines", n)
	}
	return built{listing: l, saved: dir + "/saved.tar"}
}
