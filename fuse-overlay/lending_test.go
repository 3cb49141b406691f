package fuseoverlay

import (
	"os"
	"sync"
	"testing"

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
