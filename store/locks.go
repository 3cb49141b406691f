package store

import (
	"fmt"

	"github.com/plyfs/plyfs/internal/lockfile"
)

// LockState is who holds one of the store's locks and who waits for it.
type LockState struct {
	// Name is "layers", "images", "containers" or "mountpoints".
	Name, Path string
	// Held tells whether anyone holds it; Holder is who, as far as is known.
	Held   bool
	Holder lockfile.Holder
	// Waiting are other programs' processes that wait in the kernel; Here
	// counts what waits in this process.
	Waiting []int
	Here    int
}

// LockState tells who holds and who waits for the lock of a name: a kind's
// plural, or "mountpoints". Nothing is locked.
func (s *Store) LockState(name string) (LockState, error) {
	file := s.mountsLock
	for k := range Kind(numKinds) {
		if k.Plural() == name {
			file = s.locks[k]
		}
	}
	st := LockState{Name: name, Path: file.Path()}
	var err error
	if st.Holder, st.Held, err = file.Holder(); err == nil {
		st.Waiting, st.Here, err = file.Waiters()
	}
	if err != nil {
		return st, fmt.Errorf("the lock of %s: %w", name, err)
	}
	return st, nil
}
