package fuseoverlay

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// lending gives the owner of upper files, for a moment, the rights that their
// mode does not give. A server that has no more than an owner's rights (an
// ordinary user's, through fusermount3) needs them for what the caller needs no
// right on that file for: marks of a file that may not be written to, a
// directory that is moved, or in which a file is copied up. Whether the caller
// may do what he does, the kernel has checked. A kill in the middle leaves a
// file's owner those rights.
//
// The zero value is not usable; nil lends nothing, and does nothing else either.
type lending struct {
	uid  uint32
	ends atomic.Uint64 // how many loans have ended

	mu  sync.Mutex // a leaf; over it chmod and stat of upper files
	out map[loanKey]*loan
}

type loanKey struct{ dev, ino uint64 }

// loan is a file whose mode is really another; guarded by lending.mu.
type loan struct {
	mode  uint32 // its permissions
	users int
}

func newLending() *lending {
	return &lending{uid: uint32(os.Geteuid()), out: map[loanKey]*loan{}}
}

func keyOf(st *safefs.Stat) loanKey { return loanKey{st.Dev, st.Ino} }

// lend gives the owner of the file that r is all rights but that to execute.
// back, which is called with r still open, takes them away again.
func (l *lending) lend(r *safefs.Ref) (back func() error, err error) {
	nothing := func() error { return nil }
	if l == nil {
		return nothing, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	st, err := r.Stat()
	if err != nil {
		return nil, err
	}
	key, mode := keyOf(&st), st.Mode&0o7777
	one := l.out[key]
	if one == nil {
		all := mode | 0o600
		if st.IsDir() {
			all |= 0o700
		}
		if all == mode || st.UID != l.uid || !st.IsDir() && st.Type() != unix.S_IFREG {
			return nothing, nil
		}
		if err := r.Chmod(all); err != nil {
			return nil, err
		}
		one = &loan{mode: mode}
		l.out[key] = one
	}
	one.users++
	return func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if one.users--; one.users > 0 {
			return nil
		}
		delete(l.out, key)
		err := r.Chmod(one.mode)
		l.ends.Add(1)
		return err
	}, nil
}

// during does do while the owner of the file that r is has all rights.
func (l *lending) during(r *safefs.Ref, do func() error) error {
	back, err := l.lend(r)
	if err != nil {
		return err
	}
	return errors.Join(do(), back())
}

// at is during for name in d, wherever do moves it; there may be none.
func (l *lending) at(d *safefs.Dir, name string, do func() error) error {
	if l == nil {
		return do()
	}
	r, err := d.Ref(name)
	if err != nil {
		return do()
	}
	return errors.Join(l.during(r, do), r.Close())
}

// seen returns what look sees of a file, with the mode that it has without loans.
func (l *lending) seen(look func() (safefs.Stat, error)) (safefs.Stat, error) {
	if l == nil {
		return look()
	}
	for {
		ends := l.ends.Load()
		st, err := look()
		if err != nil {
			return st, err
		}
		l.mu.Lock()
		one := l.out[keyOf(&st)]
		if one != nil {
			st.Mode = st.Mode&^0o7777 | one.mode
		}
		l.mu.Unlock()
		if one != nil || l.ends.Load() == ends {
			return st, nil
		}
	}
}

// chmod sets a file's mode, at the end of a loan if there is one.
func (l *lending) chmod(a access, mode uint32) error {
	if l == nil {
		return a.chmod(mode)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	st, err := a.stat()
	if err != nil {
		return err
	}
	if one := l.out[keyOf(&st)]; one != nil {
		one.mode = mode
		return nil
	}
	return a.chmod(mode)
}

// moveDir renames the directory name of from, which another directory then has:
// that takes the right to write to it.
func (w *work) moveDir(from *safefs.Dir, name string, to *safefs.Dir, newName string, flags uint) error {
	return w.loans.at(from, name, func() error { return from.Rename(name, to, newName, flags) })
}

// discardDir moves the directory name of d to work.
func (w *work) discardDir(d *safefs.Dir, name, staged string, flags uint) error {
	if flags == 0 {
		return w.moveDir(d, name, w.stage, staged, 0)
	}
	return w.loans.at(d, name, func() error { return w.stage.Rename(staged, d, name, flags) })
}

// removeFull removes a directory in work, in which there is something. That takes
// all rights on it: who has it open still sees the mode that it had.
func (w *work) removeFull(staged string) error {
	return w.loans.at(w.stage, staged, func() error { return removeFull(w.stage, staged) })
}
