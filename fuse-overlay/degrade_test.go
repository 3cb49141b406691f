package fuseoverlay

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestInternalError breaks a node as no request can: what asks for it gets EIO,
// the mount turns read-only and says why, and goes on to be read.
func TestInternalError(t *testing.T) {
	t.Parallel()
	r := newRig(t, "echo b > b; mkdir d s; echo c > d/c; echo a > s/a")
	var said logText
	log := logrus.New()
	log.SetOutput(&said)
	r.config.Log = logrus.NewEntry(log)
	r.start()
	r.do("stat s/a b d/c; echo before > before; chmod 600 d")
	o := r.server.o
	o.treeMu.Lock()
	o.table.nodes.all(func(n *node) {
		if n.home.name == "a" {
			n.lower = spot{}
		}
	})
	o.treeMu.Unlock()
	r.do(`! cat s/a 2>$2/err; grep -q 'Input/output error' $2/err
		[ "$(echo $(cat b before d/c))" = "b before c" ]
		ls -l . d; find . -name c | grep -q d/c
		for c in 'echo x > b' 'echo x > new' 'rm b' 'mkdir e' 'mv b c' 'chmod 600 d/c' 'ln b l' 'truncate -s 0 before' 'setfattr -n user.a -v b d'; do
			! sh -c "$c" 2>$2/err || { echo "$c is done"; exit 1; }
			grep -q 'Read-only file system' $2/err || { echo "$c: $(cat $2/err)"; exit 1; }
		done
		[ "$(echo $(cat b before d/c))" = "b before c" ]; ! cat s/a`)
	if s := r.server.Stats(); !strings.Contains(s, "\ndegraded an internal error: ") {
		t.Errorf("stats: %s", s)
	}
	if s := said.String(); !strings.Contains(s, "the overlay turns read-only: an internal error: ") || !strings.Contains(s, "a request panicked") {
		t.Errorf("the log says: %s", s)
	}
	r.stop()
	r.start() // it was nothing that lasts
	r.do("[ $(cat s/a) = a ]; echo x > b; rm d/c")
}

// TestLongNamesOfFileMarks: a name that leaves no room for a `.wh.` mark cannot
// be moved away from a lower file, which is said before anything is done.
func TestLongNamesOfFileMarks(t *testing.T) {
	t.Parallel()
	long, most := strings.Repeat("l", 255), strings.Repeat("m", 251)
	r := newRig(t, "echo long > "+long+"; echo most > "+most+"; mkdir "+strings.Repeat("d", 252))
	r.config.FileWhiteouts = true
	r.start()
	r.do(`for c in "mv $(printf 'l%.0s' $(seq 255)) x" "rm $(printf 'l%.0s' $(seq 255))" "mv $(printf 'd%.0s' $(seq 252)) y" "rmdir $(printf 'd%.0s' $(seq 252))"; do
			! sh -c "$c" 2>$2/err; grep -q 'File name too long' $2/err || { cat $2/err; exit 1; }
		done
		[ ! -e x ]; [ ! -e y ]; echo new > new
		mv m* moved; [ $(cat moved) = most ]; [ $(ls | wc -l) = 4 ]`)
	r.stop()
	r.start()
	r.do(`[ "$(ls | cut -c 1-5 | tr '\n' ' ')" = "ddddd lllll moved new " ]; [ $(cat l*) = long ]`)
	if left := fusetest.Must(t, "ls -A $1/w/work", r.dir); strings.Contains(left, "#") {
		t.Errorf("left in the work directory: %s", left)
	}
}

// logText is a log that many may write.
type logText struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
