package fsview_test

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestQuotaNotSupported: where nothing holds a bound, none can be set.
func TestQuotaNotSupported(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("containers/c")
	w.same(w.ls("containers/c/quota"), []string{"inodes", "size", "used"}, "the files")
	w.is(w.write("containers/c/quota/size", "1g\n"), "ENOTSUP", "a bound with vfs")
	w.is(w.write("containers/c/quota/size", "much\n"), "EINVAL", "no size")
	w.is(w.write("containers/c/quota/inodes", "-1\n"), "EINVAL", "no number")
	for _, f := range []string{"size", "inodes", "used"} {
		w.same(w.read("containers/c/quota/"+f), "", f)
	}
	w.fill("x", map[string]string{"size": "1g\n"})
	w.is(w.mv("drafts/x", "containers/d"), "ENOTSUP", "a draft with a size")
	w.same(w.ls("containers/by-name"), []string{"c"}, "containers")
	w.rmdir("drafts/x")
	w.nothingStaged()
}

// TestQuota: a container is held to what quota/ or its draft says, and can be
// given more.
func TestQuota(t *testing.T) {
	t.Parallel()
	image, at := fusetest.Loop(t, t.TempDir(), 256, "mkfs.ext4 -q -O quota,project -E quotatype=prjquota", "prjquota")
	w := newWorldIn(t, at, "overlay")
	w.fill("x", map[string]string{"size": "2m\n", "inodes": "100\n"})
	if err := w.mv("drafts/x", "containers/web"); err != nil {
		t.Fatal(err)
	}
	w.same(w.read("containers/web/quota/size"), "2097152\n", "size")
	w.same(w.read("containers/web/quota/inodes"), "100\n", "inodes")
	fill := func() error { return w.write("containers/web/merged/file", string(make([]byte, 4<<20))) }
	full := func(err error) bool { return errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.ENOSPC) }
	if err := fill(); !full(err) {
		t.Errorf("more than there is room for: %v", err)
	}
	if err := w.write("containers/web/quota/size", "16m\n"); err != nil {
		t.Fatal(err)
	}
	if err := fill(); err != nil {
		t.Errorf("after there is more room: %v", err)
	}
	used := keyed(w.read("containers/web/quota/used"))
	if used["bytes"] == "0" || used["inodes"] == "0" {
		t.Errorf("used: %v", used)
	}
	for _, f := range []string{"size", "inodes"} {
		if err := w.write("containers/web/quota/"+f, ""); err != nil {
			t.Errorf("no bound: %v", err)
		}
	}
	w.same(w.read("containers/web/quota/used"), "", "used without a bound")
	if err := w.write("containers/web/ctl", "umount\n"); err != nil {
		t.Error(err)
	}
	if err := os.Remove(image); err != nil { // it stays while it is mounted
		t.Error(err)
	}
}

// A kernel with project quotas, as a program, runs TestQuota where the
// machine's own has none.
func TestQuotaInUserModeLinux(t *testing.T) {
	t.Parallel()
	if text := fusetest.UserModeLinux(t, "^TestQuota$"); !strings.Contains(text, "--- PASS: TestQuota ") || !strings.Contains(text, "status 0") {
		t.Errorf("in user-mode Linux:\n%s", text)
	}
}
