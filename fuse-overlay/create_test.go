package fuseoverlay

import (
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestCreatedWithOwner: whatever others make never lies in the upper with
// another owner, not for a moment: a trace of the server shows no change of
// owner after a file has come to its place.
func TestCreatedWithOwner(t *testing.T) {
	t.Parallel()
	r := newRig(t, "mkdir d s; chmod 1777 d; chgrp 5 s; chmod 2777 s; echo x > d/gone; touch s/gone; mkdir d/gonedir; chown -R 1000 d/gone*")
	r.start()
	const make = `setpriv --reuid 1000 --regid 1001 --clear-groups sh -c 'umask 022; rm -r d/gone d/gonedir; for d in d s; do
echo x > $d/f; mkdir $d/dir; mkfifo $d/p; ln -s x $d/l; ln $d/f $d/hard; done; echo > d/gone; mkdir d/gonedir'`
	w := fusetest.Script(t, `inotifywait -qrm -e create,attrib,moved_to --format '%e %w%f' $1/u & p=$!
sleep 0.5; cd $2; `+make+`; cd /; sleep 0.3; kill $p; wait $p`, r.dir, r.mount)
	if strings.Contains(w.Err, "not found") {
		t.Skip("inotify-tools are not installed")
	}
	for line := range strings.Lines(w.Out) {
		if strings.HasPrefix(line, "CREATE") && strings.Count(line, "/u/") > 0 && !strings.Contains(line, "/hard") && !strings.HasSuffix(strings.TrimSpace(line), "/d") && !strings.HasSuffix(strings.TrimSpace(line), "/s") && !strings.Contains(line, "gone") {
			t.Errorf("made in its place: %s", line)
		}
	}
	want := strings.ReplaceAll(`D/dir drwxr-xr-x 1000:1001
D/f -rw-r--r-- 1000:1001
D/hard -rw-r--r-- 1000:1001
D/l lrwxrwxrwx 1000:1001
D/p prw-r--r-- 1000:1001
`, "D", "d") + strings.ReplaceAll(`D/dir drwxr-sr-x 1000:5
D/f -rw-r--r-- 1000:5
D/hard -rw-r--r-- 1000:5
D/l lrwxrwxrwx 1000:5
D/p prw-r--r-- 1000:5
`, "D", "s")
	if got := r.do(`find d s -mindepth 1 ! -name 'gone*' -printf '%p %M %U:%G\n' | sort`); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
