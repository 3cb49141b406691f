package main

import (
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCopySame: copies are what the peers' program makes of them: content,
// owners through ID maps, modes, links.
func TestCopySame(t *testing.T) {
	t.Parallel()
	theirs := peer(t)
	lines := parseScript(t, `
		import-layer -i o1 <a.tar
		create-layer -i o3 o1
		create-layer -i p1 --uidmap 0:100:10 --gidmap 0:200:10
		copy dat o3:/x
		copy --chown 3:4 dat o3:/y
		copy o1:/d o3:/z
		copy --chown 5:6 tree o3:/t
		copy --chown 7 dat mf o3:/w
		copy o1:/d p1:/m
		copy --chown 3:4 dat p1:/n
		copy p1:/n o3:/back
		copy dat o3:/d/f
	`)
	tree := map[string]string{}
	for _, prog := range []string{theirs, ours} {
		p := newPlace(t, "vfs")
		for _, l := range lines {
			if o := p.run(prog, l); o.Status != 0 {
				t.Fatalf("%s: %s: %v", prog, l.text, o)
			}
		}
		cmd := exec.Command("sh", "-ec", `for l in o3 p1; do cd "$1/$l"; find . -mindepth 1 \( -type f -printf "$l/%P %U:%G %m %y %s " -exec md5sum {} \; -o -printf "$l/%P %U:%G %m %y %l\n" \); done`, "sh", filepath.Join(p.dir, "root", "vfs", "dir"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		list := strings.Split(string(out), "\n")
		sort.Strings(list)
		tree[prog] = strings.Join(list, "\n")
	}
	if d := cmp.Diff(tree[theirs], tree[ours]); d != "" || !strings.Contains(tree[ours], "o3/back 3:4") {
		t.Errorf("- theirs, + ours:\n%s", d)
	}
}
