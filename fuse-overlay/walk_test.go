package fuseoverlay

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestDeepUpper: a tree in the upper that is deeper than the server may have
// files open is counted, and its whiteouts are swept when it is renamed; one in
// workdir is removed. The server is a child, whose limit is its own.
func TestDeepUpper(t *testing.T) {
	t.Parallel()
	needRoot(t)
	if r := fusetest.Child(t, "TestDeepChild", "DEEP_CHILD=1"); r.Status != 0 {
		t.Errorf("%s\n%s", r.Out, r.Err)
	}
}

// TestDeepChild is the child of TestDeepUpper.
func TestDeepChild(t *testing.T) {
	if os.Getenv("DEEP_CHILD") == "" {
		t.Skip("runs as a child of TestDeepUpper")
	}
	r := newRig(t, "mkdir top; touch top/low")
	// What others left in workdir is as deep, with directories that nobody may enter.
	leave := `for d in work index; do mkdir -p $1/$d/'#9'; touch $1/$d/'#rm1'; ( cd $1/$d/'#9'; python3 -c '
import os
for i in range(2500):
    os.mkdir("d" * 200); os.mkdir("e"); open("f", "w").close(); os.mkdir("e/x"); os.chmod("e", 0)
    os.chdir("d" * 200)
' ); done`
	fusetest.Must(t, leave, r.config.Work)
	r.config.Descriptors, r.config.MaxBytes = 16, 1<<30
	fusetest.Must(t, `mkdir -p $1/top; cd $1/top; python3 -c '
import os, stat
for i in range(1000):
    os.mkdir("d")
    os.chdir("d")
os.mknod("hidden", 0o600 | stat.S_IFCHR, 0)
with open("last", "w") as f: f.write("x" * 5000)
' `, r.config.Upper)
	var was unix.Rlimit
	check(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	few := was
	few.Cur = 400
	check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
	defer func() {
		check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was))
		fusetest.Must(t, "rm -rf $1 $2", r.config.Upper, r.config.Work)
	}()
	r.start()
	if left := fusetest.Must(t, `ls -A $1/work $1/index | grep -v holder`, r.config.Work); strings.Contains(left, stagePrefix) {
		t.Errorf("workdir has %q", left)
	}
	if _, files := r.server.o.quota.holds(); files < 1000 {
		t.Errorf("%d files are counted", files)
	}
	r.do("mv top new")
	r.stop()
	fusetest.Must(t, `cd $1/new; python3 -c '
import os
for i in range(1000): os.chdir("d")
assert os.listdir(".") == ["last"], os.listdir(".")
'`, r.config.Upper)
}
