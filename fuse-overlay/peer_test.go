package fuseoverlay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// peerMount runs fuse-overlayfs on options at target, and returns what ends it,
// once however often it is called.
func peerMount(t tb, target, options string) func() {
	t.Helper()
	out, err := exec.Command("fuse-overlayfs", "-o", options, target).CombinedOutput()
	if err != nil {
		t.Fatalf("fuse-overlayfs: %v: %s", err, out)
	}
	return sync.OnceFunc(func() {
		// Its daemon may still be finishing a request: EBUSY for a moment.
		for range 100 {
			if err = unix.Unmount(target, 0); err == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("unmount %s: %v", target, err)
	})
}

// peerReads tells whether fuse-overlayfs can read the layers mounted at mnt: of
// some that it made itself, 1.10 answers ENOMEM for a directory's listing.
func peerReads(t tb, mnt string) bool {
	t.Helper()
	err := filepath.WalkDir(mnt, func(_ string, _ fs.DirEntry, err error) error { return err })
	if !errors.Is(err, unix.ENOMEM) {
		check(t, err)
	}
	return err == nil
}

// notCompared are what fuse-overlayfs 1.10 does not show as the kernel does:
// link counts, blocks, attributes (it lists marks), identity of hard links.
var notCompared = regexp.MustCompile(` links \d+| blocks \d+| xattrs \[.*?\] same ".*"`)

func (t tree) withoutPeerQuirks() tree {
	out := tree{}
	for p, about := range t {
		out[p] = notCompared.ReplaceAllString(about, "")
	}
	return out
}

// TestPeerMadeLayers lets fuse-overlayfs make layers (its own marks) by random
// work, and compares our union of them with its read-only view. No hard links:
// a copy-up splits them, and the peer then still shows both names as one inode,
// with the mode and owner of whichever it looked up last.
func TestPeerMadeLayers(t *testing.T) {
	t.Parallel()
	needRoot(t)
	if _, err := exec.LookPath("fuse-overlayfs"); err != nil {
		t.Skip("fuse-overlayfs is not installed")
	}
	base := t.TempDir()
	n, unread := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(base, fmt.Sprint(n))
		defer func() { check(t, os.RemoveAll(dir)) }()
		mnt, bottom := filepath.Join(dir, "mnt"), filepath.Join(dir, "bottom")
		check(t, os.MkdirAll(mnt, 0o755))
		check(t, os.MkdirAll(bottom, 0o755))
		for i := range 10 {
			actWithoutLinks(t, bottom, i, linkAct-1)
		}
		dirs := []string{bottom}
		for k := range rapid.IntRange(1, 3).Draw(t, "layers") {
			upper, work := filepath.Join(dir, fmt.Sprint("u", k)), filepath.Join(dir, fmt.Sprint("w", k))
			check(t, os.Mkdir(upper, 0o755))
			check(t, os.Mkdir(work, 0o755))
			end := peerMount(t, mnt, "lowerdir="+strings.Join(dirs, ":")+",upperdir="+upper+",workdir="+work)
			defer end()
			for i := range rapid.IntRange(1, 8).Draw(t, "acts") {
				actWithoutLinks(t, mnt, i, linkAct-1)
			}
			end()
			dirs = append([]string{upper}, dirs...)
		}
		end := peerMount(t, mnt, "lowerdir="+strings.Join(dirs, ":"))
		defer end()
		if !peerReads(t, mnt) {
			unread++
			return
		}
		want := realTree(t, mnt)
		end()
		tr := openTree(t, AllMarks, dirs...)
		compare(t, "peer", want.withoutPeerQuirks(), ourTree(t, tr.Root()).withoutPeerQuirks())
		check(t, tr.Close())
	})
	if unread*10 > n {
		t.Errorf("fuse-overlayfs could not read %d of the %d sets of layers that it made", unread, n)
	}
}
