package fuseoverlay

import (
	"time"

	"github.com/plyfs/plyfs/internal/safefs"
)

// quietChange is a change of a directory that nobody asked for: a copy-up puts a copy
// into it, or makes an upper directory of a lower one. The kernel is not told,
// and goes on believing the time of change that it knows, until a listing of the
// directory has it ask again. A program that reads the directory, and looks
// whether it was changed meanwhile (tar), would be wrong then. So that time is
// shown on, as on a plain directory, whose time is not changed by its files' either.
type quietChange struct {
	shown time.Time
	real  time.Time // zero: the copy-up is at work
}

// show shows the time of before a change that nobody asked for, if there was no
// other since.
func (d *dirState) show(st *safefs.Stat) {
	if q := d.quiet.Load(); q != nil && (q.real.IsZero() || q.real.Equal(st.Ctime)) {
		st.Ctime = q.shown
	}
}

// quietly calls change, which nobody asked for; self is the upper directory, and
// d is locked for writing. What others change of its attributes meanwhile they
// tell by loud.
func (d *dirState) quietly(self *safefs.Ref, before *safefs.Stat, change func() error) error {
	old, q := d.quiet.Load(), &quietChange{shown: before.Ctime}
	if old != nil && old.real.Equal(before.Ctime) {
		q.shown = old.shown
	}
	if !d.quiet.CompareAndSwap(old, q) {
		return change()
	}
	err := change()
	after, serr := self.Stat()
	if serr != nil {
		d.quiet.CompareAndSwap(q, nil)
		return err
	}
	d.quiet.CompareAndSwap(q, &quietChange{q.shown, after.Ctime})
	return err
}

// loud says that n's attributes were changed, as somebody asked.
func (n *node) loud() {
	if n.isDir() && n.dir.quiet.Load() != nil {
		n.dir.quiet.Store(nil)
	}
}
