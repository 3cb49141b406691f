package fuseoverlay

import (
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/safefs"
)

// TestLending: whoever looks at a file sees the mode that it has without loans,
// while many take and end some; what it is changed to meanwhile stays.
func TestLending(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	check(t, os.Mkdir(dir+"/d", 0o555))
	d, err := safefs.OpenRoot(dir)
	check(t, err)
	defer func() { check(t, d.Close()) }()
	l := newLending()
	mode := func() uint32 {
		st, err := l.seen(func() (safefs.Stat, error) { return d.Stat("d") })
		check(t, err)
		return st.Mode & 0o7777
	}
	var borrowers, lookers sync.WaitGroup
	ended := make(chan struct{})
	for range 3 {
		borrowers.Go(func() {
			for range 500 {
				if err := l.at(d, "d", func() error { return nil }); err != nil {
					t.Error(err)
				}
			}
		})
		lookers.Go(func() {
			for more := true; more; {
				if m := mode(); m != 0o555 {
					t.Errorf("seen with mode %o", m)
				}
				select {
				case <-ended:
					more = false
				default:
				}
			}
		})
	}
	borrowers.Wait()
	close(ended)
	lookers.Wait()
	check(t, l.at(d, "d", func() error {
		if st, err := d.Stat("d"); err != nil || st.Mode&0o7777 != 0o755 {
			t.Errorf("lent: %o, %v", st.Mode, err)
		}
		if err := l.chmod(access{dir: d, name: "d"}, 0o511); err != nil {
			return err
		}
		if m := mode(); m != 0o511 {
			t.Errorf("changed during a loan: seen with mode %o", m)
		}
		return l.at(d, "d", func() error { return nil })
	}))
	if st, err := d.Stat("d"); err != nil || st.Mode&0o7777 != 0o511 || len(l.out) != 0 {
		t.Errorf("at the end: %o, %v, %d loans", st.Mode, err, len(l.out))
	}
	check(t, l.at(d, "none", func() error { return nil }))
}

// TestRemovedModeAsUser: who has a removed directory open, in which there are whiteouts
// that its mode does not let an ordinary user's server remove, sees that mode.
func TestRemovedModeAsUser(t *testing.T) {
	t.Parallel()
	r := fusetest.AsUser(t, fusetest.User{Env: []string{"REMOVED_MODE=1"}},
		`export TMPDIR=$HOME; exec "$1" -test.run '^TestRemovedModeChild$' -test.v`, fusetest.Exe(t))
	if r.Status != 0 || !strings.Contains(r.Out, "--- PASS: TestRemovedModeChild") {
		t.Errorf("status %d\n%s%s", r.Status, r.Out, r.Err)
	}
}

// TestRemovedModeChild is the child of TestRemovedModeAsUser.
func TestRemovedModeChild(t *testing.T) {
	if os.Getenv("REMOVED_MODE") == "" {
		t.Skip("runs as a child of TestRemovedModeAsUser")
	}
	dir := t.TempDir()
	fusetest.Must(t, "cd $1; mkdir l u w m l/d; touch l/d/1 l/d/2", dir)
	s, err := Mount(MountConfig{Lower: []string{dir + "/l"}, Upper: dir + "/u", Work: dir + "/w", AttrTimeout: time.Nanosecond}, dir+"/m")
	check(t, err)
	if s.o.work.loans == nil {
		t.Error("the server is no ordinary user's")
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	got := fusetest.Script(t, `cd $1/m; rm d/1 d/2; chmod 510 d; exec 3<d; rmdir d; stat -c %a - <&3; stat -f . >/dev/null; stat -c %a - <&3`, dir)
	if got.Out != "510\n510\n" {
		t.Errorf("seen: %s%s", got.Out, got.Err)
	}
	if left := fusetest.Must(t, "ls $1/w/work", dir); left != "#whiteout\nholder\n" {
		t.Errorf("left: %s", left)
	}
	fusetest.Must(t, "fusermount3 -u $1/m", dir)
	check(t, <-served)
}
