package fusefs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/vnode"
)

// Attributes that are told with ValidCall are asked for by each path, so they are
// never old there, and not a second time by the same system call.
func TestValidForTheCall(t *testing.T) {
	t.Parallel()
	f := &hosted{base: base{name: "f"}, path: filepath.Join(t.TempDir(), "f"), offers: func() bool { return false }}
	if err := os.WriteFile(f.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDir("d", &calls{}, map[string]vnode.Node{"f": f})
	root := newDir("/", &calls{}, map[string]vnode.Node{"d": d})
	d.valid, root.valid = vnode.ValidCall, vnode.ValidCall
	dir, s := mounted(t, root, Options{})
	fusetest.Must(t, `perl -e 'for (1..200) {
	open(F, ">>", $ARGV[1]) or die; print F "x"; close F;
	-s "$ARGV[0]/d/f" == $_ or die "the size is old"
}' $1 $2`, dir, f.path)
	if names, attrs := requestsOf(s, "lookup"), requestsOf(s, "getattr"); names < 400 || attrs > 200 {
		t.Errorf("200 calls asked for %d names, which should be 400, and for %d attributes apart", names, attrs)
	}
}
