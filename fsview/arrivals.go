package fsview

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/plyfs/plyfs/internal/errno"
)

// maxSettled is how many names of archives that are in already stay at once.
const maxSettled = 64

// arrivals are the names in images/import/. A name is there while a handle on it
// is open. One that begins with a dot stays when its archive was imported: it is
// the temporary one of a program that closes the file, sets its times and mode,
// and then gives it its own name (rsync, install). That rename, or a removal,
// ends it, and so does the 64th such name after it.
type arrivals struct {
	mu      sync.Mutex // guards what follows; nothing else is locked under it
	names   map[string]*arrival
	settled []string // those that stay, oldest first
}

// arrival is one name, for the handles that were opened while it was there.
type arrival struct {
	open    int
	settled bool
}

// has tells whether the name is there.
func (a *arrivals) has(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.names[name] != nil
}

// begin is a handle's opening.
func (a *arrivals) begin(name string) *arrival {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.names[name]
	if v == nil {
		v = &arrival{}
		a.names[name] = v
	}
	v.open++
	return v
}

// end is a handle's last close.
func (a *arrivals) end(name string, v *arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v.open--
	a.sweepLocked(name, v)
}

// settle is told of an import that is done. The close that did it is answered
// before the handle's release comes, so the name stays from here on.
func (a *arrivals) settle(name string, v *arrival) {
	if !strings.HasPrefix(name, ".") {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if v.settled || a.names[name] != v {
		return
	}
	v.settled = true
	a.settled = append(a.settled, name)
	if len(a.settled) > maxSettled {
		a.unsettleLocked(a.settled[0])
	}
}

// leave ends a name whose archive is in. It tells whether the name is there, and
// whether it was ended: one that is being written stays.
func (a *arrivals) leave(name string) (there, left bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.names[name]
	if v == nil || !v.settled {
		return v != nil, false
	}
	a.unsettleLocked(name)
	delete(a.names, name) // its handle, if the release is yet to come, needs it no more
	return true, true
}

func (a *arrivals) unsettleLocked(name string) {
	v := a.names[name]
	v.settled = false
	a.settled = slices.DeleteFunc(a.settled, func(n string) bool { return n == name })
	a.sweepLocked(name, v)
}

func (a *arrivals) sweepLocked(name string, v *arrival) {
	if v.open <= 0 && !v.settled && a.names[name] == v {
		delete(a.names, name)
	}
}

// unlinkImport is rm of a name whose archive is in.
func unlinkImport(_ context.Context, p place, name string) error {
	switch there, left := p.fs.arrivals.leave(name); {
	case !there:
		return unknown("no archive %q is on its way in", clip(name))
	case !left:
		return errno.New(errno.ErrInUse, "the archive %q is on its way in: end the program that writes it, and it is dropped", clip(name))
	}
	return nil
}

// renameImport is mv of a temporary name to the archive's own, by the program
// that copied it: it is in already, and so neither name stays.
func renameImport(_ context.Context, p place, name string, to where, newName string) error {
	if to.row != p.row || to.id != p.id {
		return errRename(p, name)
	}
	switch there, left := p.fs.arrivals.leave(name); {
	case !there:
		return unknown("no archive %q is on its way in", clip(name))
	case !left:
		return errno.New(errno.ErrInUse, "the archive %q is on its way in: close it before %q becomes its name, or write that name at once", clip(name), clip(newName))
	}
	return nil
}
